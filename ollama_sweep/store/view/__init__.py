"""The view `results`: what people see of a sweep."""
