"""What a run says of itself, in words."""
