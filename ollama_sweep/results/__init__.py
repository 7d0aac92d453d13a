"""What the numbers say: status, best cells, tables, reports, pictures.

No engine is started here and nothing is measured.
"""

from ollama_sweep.core import metrics

for _room in ("ollama_sweep.tasks", "ollama_sweep.engines"):  # asked for their numbers only where a name is not known
    metrics.add_room(_room)
