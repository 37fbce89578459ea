"""The stages of the loop on an open platform: load, call the pure rule, record. Used by assets, sensors and commands.

Nothing is decided here; each function names the rule it calls. Each group of assets has one module: `tick`, `retraining`,
`probation`.
"""
