"""What a sweep says in words, tables and files. `best` and `exports` are pure; `tables` also writes."""
