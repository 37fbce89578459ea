"""Published policies to compare with: calendars, drift alarms, detectors on the error, performance estimation, and an oracle.

Each takes its statistics from its own package (the extra `replay`), without that package's rendering, and is one file to add.
"""
