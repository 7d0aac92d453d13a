"""Measure a model over num_ctx x num_batch (and other settings), for days, and say which numbers may be believed."""

__version__ = "0.1.0"
