"""Latency against prompt and output tokens together: a point for each answer."""

from ollama_sweep.results.plots import ANSWERS
from ollama_sweep.results.plots.shared.scatter_chart import Scatter

TAKES = ANSWERS
USES: frozenset[str] = frozenset()
_scatter = Scatter("total_tokens_vs_latency", x="total_tokens", y="latency_s")
collect, draw, save_all = _scatter.collect, _scatter.draw, _scatter.save_all
