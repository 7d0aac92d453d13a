"""What the numbers say: status, best cells, tables, reports, pictures.

No engine is started here and nothing is measured.
"""

from ollama_sweep.core import metrics

metrics.add_room("ollama_sweep.tasks")
