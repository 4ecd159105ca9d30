"""Keeps the roles of one machine running: starts, restarts and stops them, in order."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType

import structlog

from headwater.errors import ConfigError
from headwater.roles import Exit

WANTED_SECONDS = 1.0
"""From one look whether there is something to do for a role to the next."""


@dataclass(frozen=True)
class Role:
    """A child process: its name, its command, and how long it may take to stop in order.

    One with ``wanted`` runs only while there is something to do for it: it is started when that
    says so, and may end by itself.
    """

    name: str
    command: Sequence[str]
    stop_seconds: float = 30.0
    wanted: Callable[[], bool] | None = None


@dataclass
class _Child:
    role: Role
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float | None = None

    @property
    def lasting(self) -> bool:
        """Whether it runs, or is to, whatever there is to do."""
        return self.role.wanted is None and (self.process or self.restart_at) is not None

    @property
    def idle(self) -> bool:
        """Whether it waits for something to do."""
        waits = self.process is None and self.restart_at is None
        return waits and self.role.wanted is not None

    def due(self, now: float) -> bool:
        """Whether it is to be started."""
        if self.restart_at is not None:
            return self.restart_at <= now
        return self.idle and self.role.wanted is not None and self.role.wanted()

    def forget(self) -> None:
        """Lets go of a process that has ended."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


@dataclass(frozen=True)
class _Ended:
    name: str
    code: int


@dataclass(frozen=True)
class _Signalled:
    number: int


@dataclass
class Supervisor:
    """Runs roles until a signal, or until going on makes no sense.

    Roles are started in the order given and stopped in the opposite one. A role
    that ends by itself is started again after ``first_delay`` seconds, twice
    that after the next failure, and so on up to ``longest_delay``; a role that
    has lived for ``steady_seconds`` starts over at ``first_delay``. A role that
    exits with ``Exit.CONFIGURATION`` ends the supervisor, one that exits with
    ``Exit.FENCED`` stays down.

    Every child's standard input is a pipe from here (see ``_lifeline``), and it
    runs in a process group of its own, so that a Ctrl-C reaches it once: as the
    SIGTERM that is sent from here. All are in one session: Linux may share
    processors out by sessions, and then a role of another one yields to nobody.

    Args:
        keep_open: file descriptors that the children inherit.
    """

    roles: Sequence[Role]
    first_delay: float = 0.1
    longest_delay: float = 5.0
    steady_seconds: float = 30.0
    keep_open: Sequence[int] = ()
    _children: dict[str, _Child] = field(init=False)
    _news: SimpleQueue[_Ended | _Signalled] = field(init=False, default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        self._children = {role.name: _Child(role) for role in self.roles}
        self._log = structlog.get_logger()

    def run(self) -> Exit:
        """Supervises until SIGINT, SIGTERM or SIGHUP; a second signal kills what is left.

        Returns:
            ``STOPPED`` when every role stopped in time, ``FAILED`` when one had to be
            killed or none was left to run.

        Raises:
            ConfigError: a role refused its configuration; the others have been stopped.
        """
        with _handled(lambda number: self._news.put(_Signalled(number))):
            try:
                for child in self._children.values():
                    if child.role.wanted is None:
                        self._start(child)
                self._supervise()
                return self._stop()
            finally:
                self._kill()

    def _supervise(self) -> None:
        """Returns when it is time to stop."""
        while any(child.lasting for child in self._children.values()):
            news = self._next(self._until_turn())
            now = time.monotonic()
            if isinstance(news, _Signalled):
                self._log.info("stopping", signal=signal.Signals(news.number).name)
                return
            if isinstance(news, _Ended):
                self._ended(self._children[news.name], news.code, now)
            for child in self._children.values():
                if child.due(now):
                    self._start(child)

    def _ended(self, child: _Child, code: int, now: float) -> None:
        child.forget()
        name = child.role.name
        if code == Exit.CONFIGURATION:
            self._stop()
            raise ConfigError(f"the {name} role can't start; its message is above")
        if code == Exit.FENCED:
            self._log.warning(
                "role stays down: another one has taken over its work", child=name, code=code
            )
            return
        if code == Exit.STOPPED and child.role.wanted is not None:
            self._log.info("role ended: nothing is left to do", child=name)
            return
        lived = now - child.started_at
        child.failures = 1 if lived >= self.steady_seconds else child.failures + 1
        delay = min(self.longest_delay, self.first_delay * 2.0 ** (child.failures - 1))
        child.restart_at = now + delay
        self._log.error(
            "role ended, restarting",
            child=name,
            code=code,
            lived_seconds=round(lived, 3),
            failures=child.failures,
            restart_in_seconds=round(delay, 3),
        )

    def _start(self, child: _Child) -> None:
        process = subprocess.Popen(
            child.role.command,
            stdin=subprocess.PIPE,
            process_group=0,
            pass_fds=tuple(self.keep_open),
        )
        child.process = process
        child.started_at = time.monotonic()
        child.restart_at = None

        def wait() -> None:
            self._news.put(_Ended(child.role.name, process.wait()))

        threading.Thread(target=wait, name=f"wait-{child.role.name}", daemon=True).start()
        self._log.info("role started", child=child.role.name, child_pid=process.pid)

    def _stop(self) -> Exit:
        """SIGTERM to one role after the other, each within its time; SIGKILL to the late."""
        if not any(child.process for child in self._children.values()):
            self._log.info("no role is left")
            return Exit.FAILED
        outcome = Exit.STOPPED
        for child in reversed(self._children.values()):
            process = child.process
            if process is None:
                continue
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            deadline = started + child.role.stop_seconds
            while child.process is not None:
                news = self._next(deadline - time.monotonic())
                if isinstance(news, _Ended):
                    self._children[news.name].forget()
                    continue
                why = "second signal" if isinstance(news, _Signalled) else "too slow to stop"
                self._log.warning("killing role", child=child.role.name, why=why)
                outcome = Exit.FAILED
                if isinstance(news, _Signalled):
                    self._kill()
                    return outcome
                process.kill()
                process.wait()
                child.forget()
            self._log.info(
                "role stopped",
                child=child.role.name,
                code=process.returncode,
                seconds=round(time.monotonic() - started, 3),
            )
        return outcome

    def _kill(self) -> None:
        for child in self._children.values():
            if child.process is not None:
                child.process.kill()
                child.process.wait()
                child.forget()

    def _until_turn(self) -> float | None:
        """Seconds until a role is to be restarted, or asked whether there is something to do."""
        children = self._children.values()
        due = [c.restart_at - time.monotonic() for c in children if c.restart_at is not None]
        if any(child.idle for child in children):
            due.append(WANTED_SECONDS)
        return min(due, default=None)

    def _next(self, timeout: float | None) -> _Ended | _Signalled | None:
        """What happened next; ``None`` after ``timeout`` seconds of nothing."""
        try:
            return self._news.get(timeout=None if timeout is None else max(0.0, timeout))
        except Empty:
            return None


@contextmanager
def _handled(receive: Callable[[int], None]) -> Iterator[None]:
    """Hands stop signals to ``receive``; an ignored SIGHUP (nohup) stays ignored."""

    def handler(number: int, _frame: FrameType | None) -> None:
        receive(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
