"""What tokens cost: a table of prices per model, from a YAML or JSON file.

    currency: USD
    gemma:2b: {per_1m: 0.10}
    gpt-oss-20b: {input_per_1m: 0.05, output_per_1m: 0.20}
    default: {per_token: 0}

Every other key of the file is a model's name. `per_token` and `per_1m` price every token, `input_per_token` and
`output_per_token`, or `input_per_1m` and `output_per_1m`, tokens of the prompt and of the answer apart. `default` is
the price of all models without one of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ollama_sweep.core import strict_yaml
from ollama_sweep.core.cell import model_label
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.machine import files

KEYS = ("per_token", "per_1m", "input_per_token", "output_per_token", "input_per_1m", "output_per_1m")
CURRENCY, DEFAULT = "currency", "default"
_LIMIT_MB = 1
_FORMS = "{per_token: P}, {per_1m: P}, {input_per_token: P, output_per_token: P}, {input_per_1m: P, output_per_1m: P}"
_EXPONENT = re.compile(r"[+-]?\d+(\.\d+)?[eE][+-]?\d+")
_CURRENCY = re.compile(r"\S{1,8}")


@dataclass(frozen=True)
class Price:
    """What one token costs, of the prompt and of the answer."""

    input_per_token: float
    output_per_token: float


@dataclass(frozen=True)
class PriceTable:
    """Prices by model. `default` is that of every other model, None where they have none; `currency` may be ""."""

    models: Mapping[str, Price] = field(default_factory=dict)
    default: Price | None = None
    currency: str = ""

    def price_of(self, model: str) -> Price | None:
        """The price of a model by its name, by its file's name, or without `:latest`; None where it has none."""
        for name in (model, model_label(model), model.removesuffix(":latest"), f"{model}:latest"):
            if name in self.models:
                return self.models[name]
        return self.default


def one_price(per_token: float) -> PriceTable:
    """The same price for every token of every model. Raises ConfigError."""
    if not math.isfinite(per_token) or per_token < 0:
        raise ConfigError(f"{per_token:g} is not a price; write what one token costs, 0 or more, such as 0.0000005")
    return PriceTable(default=Price(per_token, per_token))


def load_prices(path: Path) -> PriceTable:
    """The table of a file. Raises ConfigError with the line of what is wrong."""
    text = files.read_text(path, _LIMIT_MB)
    # JSON may be indented by tabs, YAML may not; a JSON text has none within its strings.
    root = strict_yaml.parse(text.replace("\t", " ") if path.suffix.lower() == ".json" else text, str(path))
    if root is None:
        raise ConfigError(f"has no prices; write a line like gemma:2b: {{per_1m: 0.1}}, one of {_FORMS}", str(path))
    if not isinstance(root.value, dict):
        raise root.error("must be a mapping of models to prices, with lines like gemma:2b: {per_1m: 0.1}")
    entries = dict(root.value)
    currency = _currency(entries.pop(CURRENCY)) if CURRENCY in entries else ""
    prices = {name: _price(name, node) for name, node in entries.items()}
    if not prices:
        raise root.error(f"has no prices; write a line like gemma:2b: {{per_1m: 0.1}}, one of {_FORMS}")
    return PriceTable({name: price for name, price in prices.items() if name != DEFAULT}, prices.get(DEFAULT), currency)


def _currency(node: Node) -> str:
    text = node.line_of_text(CURRENCY)
    if not _CURRENCY.fullmatch(text):
        raise node.error(f"{CURRENCY}: {node.shown} is not a currency; write at most 8 characters, such as USD")
    return text


def _price(model: str, node: Node) -> Price:
    if not isinstance(node.value, dict):
        raise node.error(f"{model}: a price says per how many tokens; write one of {_FORMS}")
    for key, value in node.value.items():
        if key not in KEYS:
            raise value.error(f"{model}: unknown key {key}. Allowed: {', '.join(KEYS)}.{nearest(key, KEYS)}")
    given = {key: _number(f"{model}.{key}", value) for key, value in node.value.items()}
    for unit, share in (("token", 1.0), ("1m", 1e-6)):
        if set(given) == {f"per_{unit}"}:
            return Price(given[f"per_{unit}"] * share, given[f"per_{unit}"] * share)
        if set(given) == {f"input_per_{unit}", f"output_per_{unit}"}:
            return Price(given[f"input_per_{unit}"] * share, given[f"output_per_{unit}"] * share)
    raise node.error(f"{model}: {', '.join(given) or 'nothing'} is not a whole price; write one of {_FORMS}")


def _number(name: str, node: Node) -> float:
    """A price; unlike other numbers it may be written as 2e-07, as JSON does."""
    text = node.value
    value = float(text) if isinstance(text, str) and _EXPONENT.fullmatch(text) else node.number(name)
    if not math.isfinite(value) or value < 0:
        raise node.error(f"{name}: {node.shown} is not a price; write a number of 0 or more")
    return float(value)


def price_table(file: Path | None, cost_per_token: float | None) -> PriceTable | None:
    """The prices of the command line; None without any. Raises ConfigError."""
    if file is not None and cost_per_token is not None:
        raise ConfigError("give --prices or --cost-per-token, not both")
    if cost_per_token is not None:
        return one_price(cost_per_token)
    return load_prices(file) if file is not None else None
