"""The supervisor with real processes: tiny stub roles, each a line of Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from headwater.roles import Exit

SUPERVISE = """
import json, sys
from headwater.errors import HeadwaterError
from headwater.roles import _folder, logs
from headwater.roles.supervisor import Role, Supervisor
from pathlib import Path

logs.configure("supervisor")
settings = json.loads(sys.argv[1])
roles = [Role(name, command, stop) for name, command, stop in settings.pop("roles")]
try:
    with _folder.claim(Path(settings.pop("data"))) as lock:
        sys.exit(Supervisor(roles, keep_open=(lock,), **settings).run())
except HeadwaterError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""

LIVES = """
import signal, sys, time
from headwater.roles import _lifeline
sys.stdout.write("{name}\\n"); sys.stdout.flush()
def stop(*_):
    print("{name} stops", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
_lifeline.hold(grace=1.0)
time.sleep(60)
"""

HANGS = """
import signal, time
from headwater.roles import _lifeline
signal.signal(signal.SIGTERM, signal.SIG_IGN)
_lifeline.hold(grace=1.0)
print("hangs", flush=True)
time.sleep(60)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


class Running:
    """A supervisor process with its output in files, so that nothing can block on a pipe."""

    def __init__(self, folder: Path, roles: list[tuple[str, list[str], float]], **settings: Any):
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / "out", folder / "err"
        settings = {"data": str(folder / "data"), "roles": roles, **settings}
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [*python(SUPERVISE), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def logs(self, event: str) -> list[dict[str, Any]]:
        records = [
            json.loads(line) for line in self.err.read_text().splitlines() if line[:1] == "{"
        ]
        return [record for record in records if record["event"] == event]

    def children(self) -> list[psutil.Process]:
        return [psutil.Process(record["child_pid"]) for record in self.logs("role started")]


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def begin(
        *roles: tuple[str, str] | tuple[str, str, float], folder: str = "run", **settings: Any
    ) -> Running:
        given = [(role[0], python(role[1]), role[2] if len(role) > 2 else 10.0) for role in roles]
        running = Running(tmp_path / folder, given, **settings)
        started.append(running)
        return running

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def both(running: Running) -> bool:
    return {"trainer", "api"} <= set(running.lines())


def gone(process: psutil.Process) -> bool:
    """Ended; an orphan may stay a zombie for as long as process 1 takes to look."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


TRAINER = ("trainer", LIVES.format(name="trainer"))
API = ("api", LIVES.format(name="api"))


def test_stops_roles_in_the_opposite_order_and_exits_zero(start: Start) -> None:
    running = start(TRAINER, API)
    until(lambda: both(running))
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == Exit.STOPPED
    assert [line for line in running.lines() if "stops" in line] == ["api stops", "trainer stops"]
    assert [record["child"] for record in running.logs("role stopped")] == ["api", "trainer"]
    assert all(record["role"] == "supervisor" for record in running.logs("role stopped"))


def test_children_get_a_terminals_interrupt_once(start: Start) -> None:
    """Ctrl-C goes to the whole foreground process group; the roles aren't in it."""
    running = start(TRAINER, API)
    until(lambda: both(running))
    groups = {os.getpgid(child.pid) for child in running.children()}
    assert os.getpgid(running.process.pid) not in groups
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(20) == Exit.STOPPED
    assert running.lines().count("api stops") == 1


def test_roles_share_a_session_so_that_one_yields_to_the_other(start: Start) -> None:
    """Linux shares processors out by sessions first (autogroups), and only within one by policy."""
    running = start(TRAINER, API)
    until(lambda: both(running))
    sessions = {os.getsid(child.pid) for child in running.children()}
    assert sessions == {os.getsid(running.process.pid)}


def test_a_second_interrupt_kills(start: Start) -> None:
    running = start(TRAINER, ("api", HANGS))
    until(lambda: {"trainer", "hangs"} <= set(running.lines()))
    children = running.children()
    running.process.send_signal(signal.SIGINT)
    until(lambda: running.logs("stopping"))
    asked_again = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(5) == Exit.FAILED
    assert time.monotonic() - asked_again < 3
    assert all(gone(child) for child in children)


def test_a_role_that_does_not_stop_in_time_is_killed(start: Start) -> None:
    running = start(TRAINER, ("api", HANGS, 0.3))
    until(lambda: {"trainer", "hangs"} <= set(running.lines()))
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == Exit.FAILED
    assert [record["child"] for record in running.logs("killing role")] == ["api"]
    assert "trainer stops" in running.lines()


def test_restarts_with_growing_delays_up_to_the_longest(start: Start) -> None:
    running = start(
        TRAINER,
        ("api", "import sys; sys.exit(3)"),
        first_delay=0.05,
        longest_delay=0.2,
        steady_seconds=30.0,
    )
    until(lambda: len(running.logs("role ended, restarting")) >= 5)
    ended = running.logs("role ended, restarting")[:5]
    assert [record["restart_in_seconds"] for record in ended] == [0.05, 0.1, 0.2, 0.2, 0.2]
    assert {record["code"] for record in ended} == {3}
    started = [record for record in running.logs("role started") if record["child"] == "api"]
    assert len(started) >= 5
    assert running.lines().count("trainer") == 1, "the other role is left alone"


def test_a_role_that_lived_long_enough_starts_over_at_the_first_delay(start: Start) -> None:
    running = start(("api", "import time; time.sleep(0.3)"), first_delay=0.05, steady_seconds=0.2)
    until(lambda: len(running.logs("role ended, restarting")) >= 3)
    ended = running.logs("role ended, restarting")
    assert {record["restart_in_seconds"] for record in ended} == {0.05}


def test_a_killed_role_comes_back(start: Start) -> None:
    running = start(TRAINER, API)
    until(lambda: both(running))
    running.children()[0].kill()
    until(lambda: running.lines().count("trainer") == 2)
    [ended] = running.logs("role ended, restarting")
    assert (ended["child"], ended["code"]) == ("trainer", -signal.SIGKILL)
    assert running.lines().count("api") == 1


def test_a_configuration_error_ends_everything(start: Start) -> None:
    refuses = f"import sys, time; time.sleep(0.5); sys.exit({int(Exit.CONFIGURATION)})"
    running = start(TRAINER, ("api", refuses))
    assert running.process.wait(20) == 2
    assert "the api role can't start" in running.err.read_text()
    assert "trainer stops" in running.lines()
    assert not running.logs("role ended, restarting")


def test_a_fenced_trainer_stays_down_and_the_api_goes_on(start: Start) -> None:
    running = start(("trainer", f"import sys; sys.exit({int(Exit.FENCED)})"), API)
    until(lambda: running.logs("role stays down: another one has taken over its work"))
    until(lambda: "api" in running.lines())
    time.sleep(0.5)
    assert running.process.poll() is None
    assert len([r for r in running.logs("role started") if r["child"] == "trainer"]) == 1
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == Exit.STOPPED


def test_no_orphans_after_kill_9_of_the_supervisor(start: Start) -> None:
    running = start(TRAINER, ("api", HANGS))
    until(lambda: {"trainer", "hangs"} <= set(running.lines()))
    children = running.children()
    assert len(children) == 2
    running.process.kill()
    running.process.wait()
    until(lambda: all(gone(child) for child in children), seconds=8)
    assert "trainer stops" in running.lines(), "the willing one stopped in order"


def test_a_role_without_a_lifeline_would_be_an_orphan(start: Start) -> None:
    """What the test above looks for can be seen."""
    running = start(("trainer", "import time; print('trainer', flush=True); time.sleep(60)"))
    until(lambda: "trainer" in running.lines())
    [child] = running.children()
    running.process.kill()
    running.process.wait()
    try:
        with pytest.raises(psutil.TimeoutExpired):
            child.wait(2)
        assert not gone(child)
    finally:
        child.kill()


def test_a_second_supervisor_is_refused_until_the_first_is_gone(
    start: Start, tmp_path: Path
) -> None:
    data = str(tmp_path / "shared")
    first = start(TRAINER, folder="first", data=data)
    until(lambda: "trainer" in first.lines())
    second = start(TRAINER, folder="second", data=data)
    assert second.process.wait(20) == 2
    assert f"in use by another `headwater serve` (pid {first.process.pid})" in (
        second.err.read_text()
    )
    assert second.lines() == []
    [first_role] = first.children()
    first.process.kill()
    first.process.wait()
    third = start(TRAINER, folder="third", data=data)
    until(lambda: "trainer" in third.lines())
    assert gone(first_role), "the third waited for the first one's roles"
