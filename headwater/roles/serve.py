"""What ``headwater serve`` runs: the supervisor, or one role of it."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Literal

import structlog

from headwater import config as settings
from headwater import kernels
from headwater.config import Config, Serve
from headwater.errors import ConfigError, Dropped, Fenced, Unfit
from headwater.keys import KeyRing
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.roles import (
    ROLES,
    Exit,
    _folder,
    _lifeline,
    compute_on_one_thread,
    importing,
    logs,
)
from headwater.roles.challenger import wanted
from headwater.roles.supervisor import Role, Supervisor

RoleName = Literal["all", "api", "trainer", "challenger"]

STOP_SECONDS = {"api": 15.0, "trainer": 30.0, "challenger": 15.0}
"""Longest that a role may take to drain, or to learn the rest and snapshot, before SIGKILL."""


def serve(
    data: Path,
    role: RoleName = "all",
    config_file: Path | None = None,
    listen: dict[str, str | int] | None = None,
    supervised: bool = False,
) -> Exit:
    """Runs the live system, or one role of it, until it is told to stop.

    Args:
        listen: ``host`` and ``port`` where they are given by flag.
        supervised: standard input is a lifeline; its end is a request to stop.

    Returns:
        The exit code of the process. A single role reports its errors in its log.

    Raises:
        ConfigError: only from ``role="all"``: a setting, host, port or key is at fault.
        LogError: likewise: the data folder is in use, or can't be written, or holds logs that
            can't be opened.
    """
    logs.configure("supervisor" if role == "all" else role)
    if supervised:
        _lifeline.hold()
        # In the supervisor's session, but not its foreground: a terminal may stop who writes then.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    overrides = {"serve": listen} if listen else None
    if role == "all":
        return _supervise(settings.load(config_file, overrides), data, config_file)
    log = structlog.get_logger()
    try:
        _run_role(role, settings.load(config_file, overrides), data)
    except (ConfigError, Dropped, Unfit) as error:
        # Another try would find the same: nothing of it changes by itself.
        log.error("can't start", reason=str(error))
        return Exit.CONFIGURATION
    except Fenced as error:
        log.error("a newer trainer has taken over: this one stops", reason=str(error))
        return Exit.FENCED
    except Exception:
        log.exception("role failed")
        return Exit.FAILED
    return Exit.STOPPED


def _run_role(role: Literal["api", "trainer", "challenger"], config: Config, data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    compute_on_one_thread()
    if role == "api":
        with importing():
            from headwater import api

        check_address(config.serve, data)
        return api.serve(config, data, config.serve.host, config.serve.port)
    with importing():
        import headwater.loop  # noqa: F401
        from headwater.roles import challenger, trainer
    (trainer if role == "trainer" else challenger).run(config, data)


def _supervise(config: Config, data: Path, config_file: Path | None) -> Exit:
    data = data.resolve()
    with _folder.claim(data) as roles_lock:
        check_address(config.serve, data)
        _make_logs(data)
        roles = [
            Role(
                name,
                _command(name, config.serve, data, config_file),
                STOP_SECONDS[name],
                partial(wanted, data, config.challengers.tune) if name == "challenger" else None,
            )
            for name in ROLES
        ]
        if not kernels.are_compiled():
            structlog.get_logger().info("kernels are compiled first", seconds=30)
        return Supervisor(roles, keep_open=(roles_lock,)).run()


def _make_logs(data: Path) -> None:
    """Makes the logs, or finds at once, before a role would find it again and again, that they
    can't be opened: another file, or the format of a newer version.
    """
    SqliteEventsLog(data / "events.db").close()
    SqliteUpdatesLog(data / "updates.db").close()


def _command(name: str, serve: Serve, data: Path, config_file: Path | None) -> list[str]:
    command = [sys.executable, "-m", "headwater.cli", "serve", "--supervised"]
    command += ["--role", name, "--data", str(data)]
    command += ["--host", serve.host, "--port", str(serve.port)]
    if config_file is not None:
        command += ["--config", str(config_file.resolve())]
    return command


def check_address(serve: Serve, data: Path) -> None:
    """Refuses to listen beyond the loopback address without a key, or where it isn't possible.

    Args:
        data: the folder that may hold keys.

    Raises:
        ConfigError: names the setting and the remedy.
    """
    if not (is_loopback(serve.host) or KeyRing(data, serve.api_key).usable):
        raise ConfigError(
            f"serve.host {serve.host} can be reached from other machines, so a key is needed: "
            f"make one with `headwater key create --role admin --data {data}`, or set "
            "HEADWATER_SERVE__API_KEY (at least 16 characters) or serve.api_key in "
            "headwater.toml, or listen on 127.0.0.1"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            serve.host, serve.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise ConfigError(_refusal(serve, error)) from None


def _refusal(serve: Serve, error: OSError) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"serve.host {serve.host} is no address of this machine; choose another with --host"
    if error.errno == errno.EADDRINUSE:
        return (
            f"serve.port {serve.port} on {serve.host} is in use by another process; "
            "choose another with --port (0 takes any free one)"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"serve.port {serve.port} needs privileges that this user doesn't have; "
            "choose one above 1023 with --port"
        )
    return f"serve.port {serve.port} on {serve.host}: {error.strerror}; choose another with --port"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
