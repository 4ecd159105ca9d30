"""What the routes share: settings, logs, the model thread, feedback and counters."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from urllib.parse import unquote

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from headwater.api._engine import Engine
from headwater.api._metrics import ApiMetrics
from headwater.config import Config
from headwater.errors import InvalidInput
from headwater.feedback import Feedback
from headwater.log import EventsLog


@dataclass(slots=True, eq=False)
class Service:
    """One application's parts; a route gets it as its ``service``."""

    config: Config
    events: EventsLog
    engine: Engine
    feedback: Feedback
    metrics: ApiMetrics = field(default_factory=ApiMetrics)
    started_at: float = field(default_factory=time.time)
    appending: int = 0
    """Requests whose entries wait to be committed."""


ServiceDependency = NamedDependency[SkipValidation[Service]]


def path_id(name: str, raw: str) -> str:
    """The id in a path segment, percent-decoded.

    Routes match the path before it is decoded, so that an id may hold a slash.

    Raises:
        InvalidInput: the segment isn't UTF-8.
    """
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput(name, "in the path isn't UTF-8; percent-encode it as UTF-8") from None
