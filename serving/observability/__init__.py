"""What the running service shows of itself: metrics for Prometheus, the live feed, the data of the dashboard."""
