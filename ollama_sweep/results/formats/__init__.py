"""Forms of `export` that other programs read as their own, one file each; `results.export` has those of text."""
