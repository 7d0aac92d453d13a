"""Ollama by its command line, and what `ollama_http` shares with it: the server, its requests, its programs."""
