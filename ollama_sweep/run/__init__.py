"""Measuring: a session, its cells, its attempts, and whoever listens. Nothing here prints."""
