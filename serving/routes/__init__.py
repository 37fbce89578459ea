"""The endpoints, a module a subject. Each validates, calls, returns."""
