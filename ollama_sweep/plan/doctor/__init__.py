"""The checks of `doctor`: can a sweep run here, and would its numbers be true. They change nothing."""
