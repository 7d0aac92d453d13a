"""A sweep as it was measured, load by load: what `export` writes and the engine `replay` answers from."""
