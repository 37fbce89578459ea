"""Telling people: `channels` are where messages go, `notify` sees that each alert gets there."""
