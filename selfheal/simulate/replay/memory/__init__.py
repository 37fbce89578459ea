"""The loop's repositories in memory, over a replay: the same answers as Postgres and MLflow give, to the bit, without either.

| module | what |
| --- | --- |
| `traffic` | predictions and labels as they were at the replay's moment |
| `versions` | model versions, promotions, probations |
| `records` | decisions, ticks, alerts |
| `registry` | trained models and their rows |
| `platform` | all of it together, as the loop's stages expect it |

Nothing is written anywhere, and nothing runs beside it: one replay, one thread.
"""
