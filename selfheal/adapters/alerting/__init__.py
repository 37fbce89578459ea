"""Notification of people: `channels` defines where messages go, `delivery` sends each alert from the outbox."""
