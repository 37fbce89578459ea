"""Drift report pages: the tick they are drawn from, figures, HTML, and the files they are kept in."""
