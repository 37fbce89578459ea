"""Schemas of requests, responses and problem documents."""
