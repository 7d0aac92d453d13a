"""A sweep that another engine scouts by context swap before its own engine measures what must be its own."""
