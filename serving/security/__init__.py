"""What a request must pass before anything is done for it: key, scope, rate limit, origin, body, HTTP."""
