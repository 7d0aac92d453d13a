"""Two sweeps that are measured in turns: what a file says of them, and where their cells stand beside one another."""
