"""Migrations of the platform's database, run by alembic. Statements of a landed migration never change."""
