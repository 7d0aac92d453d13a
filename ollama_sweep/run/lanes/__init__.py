"""Several lanes measure one sweep: a coordinator that alone writes, and a process for each lane that measures."""
