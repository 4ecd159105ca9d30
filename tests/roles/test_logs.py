from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from headwater.roles import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def records(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_both_kinds_of_logger_write_one_json_object_a_line() -> None:
    out = io.StringIO()
    logs.configure("trainer", out)
    structlog.get_logger().info("learned", events=3)
    logging.getLogger("uvicorn.error").warning("port %d", 80)
    logging.getLogger("uvicorn.error").debug("hidden")
    ours, theirs = records(out)
    assert (ours["event"], ours["events"], ours["role"], ours["level"]) == (
        "learned",
        3,
        "trainer",
        "info",
    )
    assert (theirs["event"], theirs["role"], theirs["level"]) == ("port 80", "trainer", "warning")
    assert str(ours["timestamp"]).endswith("Z")


def test_an_exception_stays_on_its_line_with_its_traceback() -> None:
    out = io.StringIO()
    logs.configure("trainer", out)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        structlog.get_logger().exception("step failed")
    [record] = records(out)
    assert "Traceback" in str(record["exception"])
    assert "ValueError: two\nlines" in str(record["exception"])


def test_warnings_are_logged() -> None:
    out = io.StringIO()
    logs.configure("api", out)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    [record] = records(out)
    assert "DeprecationWarning: old" in str(record["event"])


def test_a_terminal_gets_readable_lines() -> None:
    out = Terminal()
    logs.configure("api", out)
    structlog.get_logger().info("listening", port=8080)
    assert "listening" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("supervisor", first)
    logs.configure("api", second)
    structlog.get_logger().info("once")
    assert first.getvalue() == ""
    [record] = records(second)
    assert record["role"] == "api"
