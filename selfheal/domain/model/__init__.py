"""Models: their files, scoring, examination and explanation.

- `file`: load a skops file without executing anything; `content`: compare two files.
- `requirements`: what a model file is opened with.
- `examination`: whether a model gives probabilities for all that the API lets in.
- `plain_scoring`: the same scores without the framework; `explanation`: exact shares of the log-odds.
"""
