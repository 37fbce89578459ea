"""Measurements that back the platform's claims; each module is a command: `python -m benchmarks.<module> --help`."""
