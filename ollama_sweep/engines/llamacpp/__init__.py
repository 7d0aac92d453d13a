"""llama.cpp embedded: each load in a child process, so that a crash costs a cell only."""
