"""Verification that stored records are unchanged and agree. It repairs nothing and trusts no copy more than another.

- `findings`: what a check found, and what it could not look at.
- `decided`: the chain of decisions, their files, and what went live by them.
- `artifacts`: model files, references and training sets against their digests; the alias.
- `segments`: journal files, and the digests of their rows.
- `journaled`: the journal against Postgres and against the training sets.
- `verdicts`: the gates, recomputed.
- `run`: all checks, or those of one decision.
"""
