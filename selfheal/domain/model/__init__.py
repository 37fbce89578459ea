"""A model as a file and as something that answers.

- `file`: opening a skops file without executing anything; `cache`: files on this machine, by digest; `content`: what two files say,
  compared.
- `requirements`: what a model file is opened with.
- `examination`: whether a model gives probabilities for all that the API lets in.
- `plain_scoring`: the same scores without the framework; `explanation`: exact shares of the log-odds.
"""
