"""Alerts that the API raises itself: one latch per kind, and the watchdog of the monitor."""
