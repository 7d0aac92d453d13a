"""The live page of a database: it only reads, makes HTML and SVG itself, and fetches nothing from elsewhere."""
