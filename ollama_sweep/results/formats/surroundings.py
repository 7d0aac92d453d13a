"""Where something was measured, in the words that other programs have for it, and what says something. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

Surroundings = Mapping[str, object]
ONLY_READING = 2
"""The tokens that a sweep asks for by itself: what matters then is the prompt, and so few say nothing of generating."""
_DRIVER = re.compile(r" \d[\w.-]*$")


def processor(here: Surroundings) -> str:
    """`AMD Ryzen 9 7950X 16-Core Processor`; "" where nobody knows it."""
    return str(here.get("processor") or "")


def gpus(here: Surroundings) -> str:
    """`NVIDIA GeForce RTX 4090, NVIDIA GeForce RTX 4090`, without their drivers."""
    named = str(here.get("gpus") or "")
    return ", ".join(_DRIVER.sub("", gpu.strip()) for gpu in named.split(";")) if named else ""


def has_no_gpu(here: Surroundings) -> bool:
    """It was looked for one, and there is none."""
    return here.get("gpus") == ""


def system(here: Surroundings) -> str:
    """`linux`, `darwin`."""
    return str(here.get("system") or "").split(" ")[0].lower()


def version(here: Surroundings) -> str:
    """The version of the engine."""
    return str(here.get("engine_version") or "")
