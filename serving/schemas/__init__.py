"""The documents of requests, responses and problems."""
