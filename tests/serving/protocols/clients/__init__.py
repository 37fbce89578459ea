"""Programs with real clients, each run by a Python that has them: JSON on stdin, JSON on stdout."""
