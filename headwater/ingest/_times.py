"""Points in time as people send them: ISO-8601 text, epoch seconds, epoch milliseconds.

The wire reads them one by one, here; files by the column (``_columns``), by the
same pattern and arithmetic. A time without a zone is UTC.
"""

from __future__ import annotations

import re
from datetime import date

from headwater.errors import InvalidInput

MILLISECONDS_FROM = 1e11
"""Numbers from here on (in absolute value) are milliseconds: as seconds it is the year 5138, as
milliseconds March 1973."""

LATEST = 1e11
"""No time lies beyond, either way."""

ISO = (
    r"^\s*([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2}(?:[.,][0-9]+)?))?"
    r"\s*(Z|z|[+-][0-9]{2}:?[0-9]{2})?)?\s*$"
)
"""Day, hour, minute, second, zone; for Python's and for Rust's regular expressions alike."""

_ISO_RE = re.compile(ISO)
_DAY = 86400.0
_EPOCH = date(1970, 1, 1).toordinal()


def seconds(value: str | float, field: str) -> float:
    """Seconds since 1970, UTC; negative before.

    Raises:
        InvalidInput: ``field`` isn't a time, or lies more than 3,000 years away.

    >>> seconds("1970-01-02", "timestamp"), seconds("1970-01-01T01:00:00.5+01:00", "timestamp")
    (86400.0, 0.5)
    >>> seconds(1700000000, "timestamp") == seconds(1700000000000, "timestamp")
    True
    """
    if isinstance(value, str):
        return _from_text(value, field)
    since = value / 1000.0 if abs(value) >= MILLISECONDS_FROM else float(value)
    if not abs(since) <= LATEST:
        raise InvalidInput(
            field, "is not a time, or out of range; send epoch seconds or milliseconds"
        )
    return since


def _from_text(text: str, field: str) -> float:
    match = _ISO_RE.match(text)
    if match is None:
        raise InvalidInput(
            field,
            "is not a time; send ISO-8601 (2026-01-31T12:00:00Z), or epoch seconds or "
            "milliseconds as a number",
        )
    day, hour, minute, second, zone = match.groups()
    hours, minutes = int(hour or 0), int(minute or 0)
    rest = float((second or "0").replace(",", "."))
    try:
        days = date.fromisoformat(day).toordinal() - _EPOCH
    except ValueError:
        raise InvalidInput(field, "names a day that isn't in the calendar") from None
    if hours > 23 or minutes > 59 or rest >= 60:
        raise InvalidInput(field, "names a time that isn't on the clock")
    ahead = 0
    if zone and zone not in "Zz":
        ahead = int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
        ahead = -ahead if zone[0] == "-" else ahead
    return days * _DAY + (hours * 3600 + minutes * 60 - ahead) + rest
