"""Embedding models of sentence-transformers, in a child process."""
