"""The locks of a data folder: one supervisor at a time, and no roles left from the one before.

Two locks, because they are let go at different times. ``supervisor.lock`` is the
supervisor's own; it is free again the moment that process ends. ``roles.lock``
is inherited by the children, and free once the last of them has ended: after a
kill -9 of the supervisor that takes them a few seconds more, in which the port
and the logs are still theirs.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFTOVER_SECONDS = 15.0
"""Longest wait for the roles of a killed supervisor; they exit hard well before that."""


@contextmanager
def claim(data: Path, leftover_seconds: float = LEFTOVER_SECONDS) -> Iterator[int]:
    """Holds the data folder for one supervisor; makes the folder where there is none.

    Yields:
        The descriptor of ``roles.lock``, to be inherited by every child.

    Raises:
        LogError: another supervisor runs on this folder, or the folder can't be written.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        own = os.open(data / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LogError(
            f"the data folder {data} can't be used: {error.strerror}; choose another with --data"
        ) from None
    roles = -1
    try:
        if not _lock(own):
            holder = os.pread(own, 32, 0).decode(errors="replace").strip() or "unknown"
            raise LogError(
                f"the data folder {data} is in use by another `headwater serve` (pid {holder}); "
                "stop that one, or choose another folder with --data"
            )
        os.ftruncate(own, 0)
        os.pwrite(own, f"{os.getpid()}\n".encode(), 0)
        roles = os.open(data / "roles.lock", os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + leftover_seconds
        while not _lock(roles):
            if time.monotonic() > deadline:
                raise LogError(
                    f"processes of an earlier `headwater serve` still use {data}; "
                    "stop them, or choose another folder with --data"
                )
            time.sleep(0.05)
        yield roles
    finally:
        os.close(own)
        if roles >= 0:
            os.close(roles)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
