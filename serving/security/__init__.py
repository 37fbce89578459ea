"""Security checks before a request is processed: key, scope, rate limit, origin, body, HTTP."""
