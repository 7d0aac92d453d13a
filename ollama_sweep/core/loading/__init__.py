"""What a cell needs before its first run, and what that costs."""
