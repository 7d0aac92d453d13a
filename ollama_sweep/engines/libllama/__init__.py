"""llama.cpp's library with the model loaded once: each cell is only a new context, which costs milliseconds."""
