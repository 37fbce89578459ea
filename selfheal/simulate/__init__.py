"""A world to serve: traffic with delayed labels, scenarios of change, and the demo that watches the loop heal itself."""
