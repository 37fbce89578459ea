"""The stages of the loop on an open platform: load, call the pure rule, record. Used by assets, sensors and commands.

Nothing is decided here; each function names the rule it calls. A module a group of assets: `monitoring`, `retraining`,
`probation`.
"""
