"""Replay of whole deployments on a simulated clock: streams, worlds, policies, and what each policy costs.

Belongs here: everything that happens between two event times of a stream without a process, a store or a network; `logs` alone reads
one. The parts, in the order of their imports: `stream` (what arrives, and when its label does), `models` (fitting and scoring), `policy`
(what a policy may see and answer), `engine` (the clock), `worlds` and `catalogue` (deployments declared as data), `build` (a deployment
from a declaration), `peers` (published policies), `measures` and `summary` (what a policy cost), `runs` (many replays, resumable), `logs`
(the platform's own rows as a deployment), `plans` (what a command replays), `comparison`, `tables` and `report_page` (what came of it).
"""
