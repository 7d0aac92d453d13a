"""What `doctor` looks at: each check is a `Finding` that says what was seen and what to do. Nothing here prints."""
