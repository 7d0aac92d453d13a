"""Memory, before a run: what comes last or is left out, and how a frontier is found by few questions."""
