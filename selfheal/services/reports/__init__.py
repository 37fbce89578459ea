"""Drift reports: figures, the HTML page, and the files of both."""
