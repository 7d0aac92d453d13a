"""matplotlib with a style of our own: the one place that loads it, whatever a person has set for their own pictures.

A `matplotlibrc` in the working folder or elsewhere, style files, `MPLBACKEND`, a `MPLCONFIGDIR` that cannot be written:
none of them changes a picture of ours, and a broken one does not keep it from being drawn. A module that imports
matplotlib or seaborn when it is loaded imports this one first.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ollama_sweep.core.errors import StorageError
from ollama_sweep.results.plots.shared.text import FONT

OWN = {"font.family": FONT, "hatch.linewidth": 0.7, "svg.hashsalt": "ollama-sweep", "text.parse_math": False}
"""What differs from matplotlib's own defaults."""
_READING = ("matplotlib.style", "matplotlib.font_manager")
"""The parts of matplotlib that look at a person's folders when they are loaded."""


@cache
def load() -> Any:
    """matplotlib, loaded also where a person's settings for it are broken. Raises StorageError where it cannot be."""
    with _quiet():
        try:
            return _loaded()
        except ImportError:
            raise
        except Exception:
            return _loaded_apart()


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The settings that hold while a picture is made: matplotlib's defaults and OWN, nothing else."""
    matplotlib = load()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(OWN)
        yield


def _loaded() -> Any:
    matplotlib = importlib.import_module("matplotlib")
    for part in _READING:
        importlib.import_module(part)
    return matplotlib


def _loaded_apart() -> Any:
    """The same without a look at the person's files and variables."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        del sys.modules[name]  # what is left of the first try would be taken for loaded
    aside = {name: os.environ.pop(name) for name in ("MPLBACKEND", "MATPLOTLIBRC") if name in os.environ}
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        with _beside_no_matplotlibrc():
            matplotlib: Any = importlib.import_module("matplotlib")
            # The person's style files are looked for in the folder of the configuration.
            get_configdir, matplotlib.get_configdir = matplotlib.get_configdir, matplotlib.get_data_path
            try:
                _loaded()
            finally:
                matplotlib.get_configdir = get_configdir
    except ImportError:
        raise
    except Exception as error:
        raise StorageError(f"no picture can be drawn: matplotlib cannot be loaded ({error})") from error
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update(aside)
    return matplotlib


@contextlib.contextmanager
def _beside_no_matplotlibrc() -> Iterator[None]:
    """matplotlib reads a `matplotlibrc` of the working folder before any other; so it is loaded from another folder."""
    if not os.path.lexists("matplotlibrc"):
        yield
        return
    here = os.open(".", os.O_RDONLY)
    os.chdir(Path(sys.executable).anchor or "/")
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What matplotlib finds in a person's settings is between the two of them."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


load()
