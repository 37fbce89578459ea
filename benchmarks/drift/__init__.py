"""How often is drift reported without any, and how fast is real drift detected?

    python -m benchmarks.drift --data cs-training.csv [--json drift.json] [--quick] [--only categories]

Half of the rows train the contract's estimator; the other half is the population, from which references and traffic are drawn
with replacement in runs of neighbouring rows, so that ties, tails and dependence between columns are those of the file.

- False alarms: complete deployments of 90 days with a tick every 5 minutes, traffic that falls to a fifth at night, and a mix
  that changes with the hour by more than `LIMITS.min_effect`, so that the tests alone would report it every day. Every tick is
  evaluated: both tests' statistics are computed for all ticks from counts, the platform's own comparison decides each tick near a
  threshold, and `explain` what the version's own traffic has shown to come and go. The domain classifier looks every six hours,
  and what it finds holds until it looks again. Alarms count after the first 28 days, in which the cycle may be reported and is
  learned. For comparison, Evidently's defaults and KS at 5 % (any column
  drifted) run only once per day, which favours them.
- Detection: single windows of n shifted rows; and the number of shifted rows until an alarm after a calm day.
- Categories: the same three for a table of levels and flags, which is derived from the file's columns
  (`benchmarks.drift.category_table`), without a mix that moves; the days until a shift is found that one window may miss; and faults
  of a feed's levels.
- Triage: verdicts on windows of 500 rows, through feed check, drift, performance and triage.

Belongs here: simulating and counting. The rules are in `selfheal.domain.monitoring`.
"""
