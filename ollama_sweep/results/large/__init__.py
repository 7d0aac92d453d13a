"""Results of very many cells: the same pictures, tables and words, without a row for each cell in memory."""
