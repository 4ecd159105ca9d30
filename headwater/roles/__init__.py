"""The processes of a running system.

``headwater serve`` is a supervisor with two children, the ``api`` role and the
``trainer`` role, and a third while there are challengers; each can also run alone,
on its own. Roles talk only through what is in the data folder, so any of them may
die and come back.

Processes are spawned, never forked: torch and numba don't survive a fork.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum

ROLES = ("trainer", "api", "challenger")
"""In order of start; they are stopped the other way round."""


class Exit(IntEnum):
    """Exit codes by which a role tells its supervisor what a restart would bring."""

    STOPPED = 0
    FAILED = 1
    """Something broke; started again, the role refolds the logs and goes on."""
    FENCED = 77
    """Another trainer has taken over; starting again would only fence that one off in turn."""
    CONFIGURATION = 78
    """EX_CONFIG of sysexits.h: settings, port or data folder are at fault, and stay so."""


def compute_on_one_thread() -> None:
    """To be called before torch and numba are imported: on micro-batches a second thread makes a
    step slower, up to 100 times under load, and its sums depend on how many there are.
    """
    for library in ("OMP", "MKL", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "1"


def behind_answers(niceness: int) -> None:
    """Lets this thread, and those that it starts from now on, have what no answer wants.

    Niceness alone would still have a thread of the API wait for the end of a time slice each time
    that it is woken, a thousand times a second. Where there is no such policy, or none is allowed,
    the niceness is what is left.
    """
    os.nice(niceness)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@contextmanager
def importing() -> Iterator[None]:
    """For imports that take long: what they make stays, and no collection looks through it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
