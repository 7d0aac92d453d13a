"""Loads: how far they differ, and which cells want a further one."""
