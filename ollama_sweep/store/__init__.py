"""The database, and the only room that knows SQL. It decides nothing: it keeps what it is given and gives it back."""
