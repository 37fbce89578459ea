"""Notification of people: `channels` says where messages go, `delivery` sends each alert there from the outbox."""
