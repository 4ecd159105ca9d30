"""Wakes followers of a log, in this and in other processes, when something was committed.

SQLite's hooks fire only on the connection that commits, so a follower elsewhere
would have to poll. Instead each waiting thread binds a Unix datagram socket in a
folder beside the log, and a writer sends an empty datagram to every socket that
it finds there. A lost datagram costs one slow poll, never an event.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

POLL_SECONDS = 0.2
"""How often a waiting follower looks by itself: where sockets can't be bound (some network and
container mounts), this is the delay that remains."""

TOGETHER_SECONDS = 0.01
"""Pause of a follower who was woken in vain, as one is that waits for many entries: at 200 commits
a second, being woken by each took a tenth of what the commits take."""

_ADDRESS_BYTES = 103
"""Longest socket path on every system: macOS has 104 bytes with the final NUL, Linux 108."""

_NAME_BYTES = 24
"""More than a slash, a process id, and eight random digits take."""

_BIND_ATTEMPTS = 3
"""Who closes last removes the folder, perhaps just before another binds in it."""


class Wake:
    """Wake-up calls between everything that has the log at ``path`` open."""

    def __init__(self, path: Path) -> None:
        self._folder = _socket_folder(path)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._idle: list[_Listener] = []
        self._waiting: set[_Listener] = set()
        self._lock = threading.Lock()
        self._closed = False

    def notify(self) -> None:
        """Wakes every waiter; to be called after the commit. Never fails and never blocks."""
        try:
            addresses = [entry.path for entry in os.scandir(self._folder)]
        except OSError:
            return
        for address in addresses:
            self._send(address)

    def wait(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Blocks until ``ready()`` (True), or ``timeout`` seconds passed or it was closed (False).

        ``ready`` is asked once more after the socket is bound, so a commit
        between the two can't be missed.
        """
        if ready():
            return True
        deadline = time.monotonic() + timeout
        if timeout <= 0:
            return False
        listener = self._take()
        in_vain = False
        try:
            while True:
                listener.drain()
                if self._closed:
                    return False
                if ready():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if in_vain:
                    time.sleep(min(left, TOGETHER_SECONDS))
                else:
                    listener.sleep(min(left, POLL_SECONDS))
                in_vain = not in_vain
        finally:
            self._give(listener)

    def close(self) -> None:
        """Ends every wait and removes the sockets."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            waiting = [listener.address for listener in self._waiting]
        for listener in idle:
            listener.close()
        for address in waiting:
            if address is not None:
                self._send(address)
        self._sender.close()
        self._tidy()

    def _take(self) -> _Listener:
        with self._lock:
            listener = self._idle.pop() if self._idle else _Listener(self._folder)
            self._waiting.add(listener)
        return listener

    def _give(self, listener: _Listener) -> None:
        with self._lock:
            self._waiting.discard(listener)
            if not self._closed:
                self._idle.append(listener)
                return
        listener.close()
        self._tidy()

    def _send(self, address: str) -> None:
        try:
            self._sender.sendto(b"", address)
        except ConnectionRefusedError:
            # Its owner was killed: a closed one would have removed it.
            with contextlib.suppress(OSError):
                os.unlink(address)
        except OSError:
            # A full queue is a waiter that is woken already; anything else, the poll mends.
            pass

    def _tidy(self) -> None:
        """Removes the folder if nobody else has a socket in it."""
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)


class _Listener:
    """One waiting thread's socket; without one (``address`` None) it only sleeps."""

    def __init__(self, folder: Path) -> None:
        self.address: str | None = None
        self._socket: socket.socket | None = None
        address = str(folder / f"{os.getpid():x}-{secrets.token_hex(4)}")
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for _ in range(_BIND_ATTEMPTS):
            try:
                folder.mkdir(exist_ok=True)
                bound.bind(address)
            except FileNotFoundError:
                continue
            except OSError:
                break
            self.address, self._socket = address, bound
            return
        bound.close()

    def drain(self) -> None:
        """Forgets the wake-ups so far."""
        if self._socket is None:
            return
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)

    def sleep(self, seconds: float) -> None:
        """Until the next wake-up, ``seconds`` at most."""
        if self._socket is None:
            time.sleep(seconds)
            return
        self._socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            self._socket.recv(1)

    def close(self) -> None:
        if self._socket is None or self.address is None:
            return
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self.address)


def _socket_folder(path: Path) -> Path:
    """``<path>.wake``, or, where that is too long to bind in, a short folder that every process
    with the same temporary directory finds from the path alone.
    """
    resolved = path.resolve()
    beside = resolved.with_name(resolved.name + ".wake")
    if len(os.fsencode(beside)) + _NAME_BYTES <= _ADDRESS_BYTES:
        return beside
    digest = hashlib.sha256(os.fsencode(resolved)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"headwater-{digest}.wake"
