"""Named points in a cell's life at which a test lets the process die: SWEEP_CRASH_AT=name or name:n (the n-th time)."""

from __future__ import annotations

import os
import signal

POINTS = (
    "plan_registered",
    "before_begin",
    "after_begin",
    "after_prepare",
    "after_warmup",
    "after_run",
    "before_finish",
    "in_finish",
    "after_finish",
    "after_release",
    "before_pictures",
    "in_picture",
    "before_close",
    "scouted",
)

LANE_POINTS = ("order_written", "before_hand_in", "handed_in", "result_taken")
"""Those of a coordinator and its attempt processes; `IN_LANE` in place of `VARIABLE` is for the latter."""
VARIABLE, IN_LANE = "SWEEP_CRASH_AT", "SWEEP_CRASH_IN_LANE"

_left: dict[str, int] = {}


def reached(name: str) -> None:
    """Die by SIGKILL here if the environment says so; otherwise nothing."""
    wanted, _, times = os.environ.get(VARIABLE, "").partition(":")
    if wanted != name:
        return
    _left[name] = _left.get(name, int(times or 1)) - 1
    if _left[name] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
