"""Sweeps of very many cells: whole columns at once, and what has changed since."""
