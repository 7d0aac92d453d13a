"""How far numbers differ that should be the same: runs and loads, and the machine over hours."""
