"""Scoring: the path of a prediction, from the request's bytes to the acknowledged response."""
