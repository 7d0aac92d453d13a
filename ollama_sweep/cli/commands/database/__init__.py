"""Commands about the file itself."""
