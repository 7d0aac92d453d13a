"""Threads: numpy's own are none, and nobody inherits that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ollama_fixture import clean_environment

ASKED = """
import json, os, sys
import psutil
from ollama_sweep.machine import crew
before = dict(os.environ)
crew.import_numpy_with_one_thread()
import numpy as np
square = np.eye(600) + 1.0
for _ in range(3):
    np.linalg.cholesky(square @ square)
print(json.dumps({"threads": psutil.Process().num_threads(), "same": before == dict(os.environ)}))
"""


@pytest.mark.parametrize("given", [{}, {"OPENBLAS_NUM_THREADS": "1"}])
def test_numpy_computes_with_one_thread_and_the_environment_stays(given: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED], env={**clean_environment(), **given}, text=True, check=True, capture_output=True
    )
    assert json.loads(done.stdout) == {"threads": 1, "same": True}
