"""Prompt processing time against prompt tokens: a point for each answer."""

from ollama_sweep.results.plots import ANSWERS
from ollama_sweep.results.plots.shared.scatter_chart import Scatter

TAKES = ANSWERS
USES: frozenset[str] = frozenset()
_scatter = Scatter("prompt_tokens_vs_prompt_duration", x="prompt_tokens", y="prompt_eval_duration_s")
collect, draw, save_all = _scatter.collect, _scatter.draw, _scatter.save_all
