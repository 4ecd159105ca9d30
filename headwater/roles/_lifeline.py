"""How a child notices that its supervisor is gone, and stops by itself.

A supervised role's standard input is a pipe of which the supervisor alone holds
the other end. However the supervisor ends, by kill -9 too, the kernel closes
that end, and the role reads an end of file.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import structlog

GRACE_SECONDS = 6.0
"""From the end of file to the hard exit: time for a trainer to learn the rest and to snapshot."""


def hold(fd: int = 0, grace: float = GRACE_SECONDS) -> threading.Thread:
    """Watches ``fd`` from a daemon thread: at its end, SIGTERM to ourselves, then a hard exit.

    Call it before anything slow is imported, so that a role is never without it.
    """

    def watch() -> None:
        while os.read(fd, 1024):
            pass
        structlog.get_logger().warning("the parent process is gone: stopping")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(1)

    thread = threading.Thread(target=watch, name="lifeline", daemon=True)
    thread.start()
    return thread
