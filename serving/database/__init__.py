"""Bounded access to Postgres from the event loop: a read pool and a pool for admin commands."""
