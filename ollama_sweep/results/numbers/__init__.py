"""Are the numbers of a database what its raw outputs and its formulas give? Every one is made again; see `check`."""
