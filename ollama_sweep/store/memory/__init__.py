"""What ran out of memory, and what follows from it: which places of a plan are left out, and which come last."""
