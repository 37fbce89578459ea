"""What is shown of the running service: metrics for Prometheus, the live feed."""
