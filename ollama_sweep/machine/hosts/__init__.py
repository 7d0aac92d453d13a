"""Other computers: why one cannot be reached, and the certificates by which hosts know each other."""
