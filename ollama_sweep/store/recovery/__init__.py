"""What can be read of a damaged database. It writes into a new one only."""
