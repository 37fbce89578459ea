"""Models: their files, scoring, examination and explanation.

- `file`: load a skops file without executing anything; `content`: compare two files.
- `requirements`: the packages needed to open a model file.
- `examination`: whether a model returns probabilities for every row that the API accepts.
- `plain_scoring`: the same scores without scikit-learn's overhead; `explanation`: exact contributions to the log-odds.
"""
