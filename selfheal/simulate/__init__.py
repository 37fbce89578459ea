"""Simulation: traffic with delayed labels, scenarios of change, and the demo."""
