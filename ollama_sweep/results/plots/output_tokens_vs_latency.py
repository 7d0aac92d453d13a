"""Latency against output tokens: a point for each answer."""

from ollama_sweep.results.plots import ANSWERS
from ollama_sweep.results.plots.shared.scatter_chart import Scatter

TAKES = ANSWERS
USES: frozenset[str] = frozenset()
_scatter = Scatter("output_tokens_vs_latency", x="output_tokens", y="latency_s")
collect, draw, save_all = _scatter.collect, _scatter.draw, _scatter.save_all
