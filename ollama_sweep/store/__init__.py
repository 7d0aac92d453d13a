"""The database: the only folder that knows SQL. `writer.Store` writes, `reader.Reader` reads."""
