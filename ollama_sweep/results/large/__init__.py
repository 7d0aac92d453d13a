"""Results of very many cells, read as columns of numbers: never a row for each cell in memory, no small sweep."""
