"""The asset graph, a module a group, in the order of the loop: reference, serving_logs, monitoring, retraining, promotion.

An asset loads, calls one function of `selfheal.stages`, and returns the record with metadata for people. What stands in
a description: what it is, when it runs, what to do when it is red.
"""

OWNERS = ["team:ml-platform"]
