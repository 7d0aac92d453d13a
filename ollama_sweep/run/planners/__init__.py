"""Planners: which cell comes next, for a goal. Each is a pure function of the cells, their results and the costs."""
