"""Two sweeps measured as one: whose turn it is, and the session that holds both."""
