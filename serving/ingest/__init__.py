"""What is kept and how it is asked for: the journals, their copy in Postgres, and whom to tell when copying fails."""
