"""What a sweep is for, and why each cell of it was chosen."""
