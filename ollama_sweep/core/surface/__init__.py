"""A map that is known in some of its places: what the others are likely to be."""
