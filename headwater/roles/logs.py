"""Structured logs on stderr: a JSON object a line, or readable lines on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

FIRST = ("timestamp", "level", "role", "event")
"""Fields that every record has; a reader finds them at the start of the line."""


def configure(role: str, stream: TextIO | None = None) -> None:
    """Sends structlog's and the standard library's records to ``stream`` (stderr), with ``role``.

    Libraries that log through the standard library (uvicorn, asyncio) come out
    in the same form. Warnings of Python itself are logged, not printed.
    """
    out = stream if stream is not None else sys.stderr
    terminal = out.isatty()

    def add_role(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["role"] = role
        return event

    def ordered(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**{name: event[name] for name in FIRST}, **event}

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_role,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if terminal:
        rendering: list[structlog.typing.Processor] = [
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        ]
    else:
        rendering = [
            structlog.processors.format_exc_info,
            ordered,
            structlog.processors.JSONRenderer(default=str),
        ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    # What uvicorn says of its start and end is said here in other words, with address and role.
    for chatty in ("httpx", "httpcore", "numba", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
