"""What the numbers say: status, best cells, tables, reports, pictures.

No engine is started here and nothing is measured.
"""
