"""The unit for systemd: it starts what there is, and waits for as long as a stop may take."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from headwater.cli import app
from headwater.roles import Exit
from headwater.roles.serve import STOP_SECONDS

UNIT = Path(__file__).parents[2] / "packaging" / "headwater.service"


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser["Service"]


def test_it_starts_a_command_that_there_is(service: configparser.SectionProxy) -> None:
    program, name, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/bin/headwater")
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    parsed = command.make_context(name, arguments).params
    assert parsed["data"] == Path("/var/lib") / service["StateDirectory"] / "data"
    assert parsed["role"].value == "all"


def test_a_stop_gets_the_time_that_the_roles_may_take(service: configparser.SectionProxy) -> None:
    assert float(service["TimeoutStopSec"]) > sum(STOP_SECONDS.values())
    assert service["KillMode"] == "mixed", "the supervisor alone is told, and stops its roles"


def test_only_a_setting_at_fault_keeps_it_down(
    service: configparser.SectionProxy, tmp_path: Path
) -> None:
    assert service["Restart"] == "on-failure"
    (prevented,) = map(int, service["RestartPreventExitStatus"].split())
    assert prevented not in set(Exit), "a crash is none"
    arguments = ["serve", "--config", str(tmp_path / "absent.toml")]
    done = subprocess.run([sys.executable, "-m", "headwater.cli", *arguments], timeout=60)
    assert done.returncode == prevented


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_systemd_understands_it(tmp_path: Path) -> None:
    """With a program and a user that this machine has."""
    text = UNIT.read_text()
    for line in ("User=headwater", "Group=headwater"):
        assert line in text
        text = text.replace(line, line.replace("headwater", "root"))
    program = tmp_path / "headwater"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "headwater.service"
    unit.write_text(text.replace("/opt/headwater/.venv/bin/headwater", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "headwater.service" in line]
    assert ours == []
