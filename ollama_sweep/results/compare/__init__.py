"""Two sweeps, or two segments of one, compared: which they are, what both measured, and what became of it."""
