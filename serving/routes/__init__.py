"""The endpoints, one module per subject. Each validates, calls, returns."""
