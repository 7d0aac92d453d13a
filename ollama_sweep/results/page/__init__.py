"""Pages of a sweep: everything that they say, as plain data, and templates that write it as HTML with pictures in SVG.

`report --html` puts all of it into one file; another page may take any part: a map, a table, the verdict.
"""
