"""Orders of operators on the wire: roll back, resume."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from headwater.errors import InvalidInput
from headwater.ingest._fields import decode, single

MAX_WHY = 1_000
"""Characters of a reason."""

T = TypeVar("T", bound=msgspec.Struct)


class WireRollback(msgspec.Struct, forbid_unknown_fields=True):
    """``to`` is the number of a kept version, the newest by default; ``why`` is for the trail."""

    to: int | None = None
    why: str | None = None


class WireResume(msgspec.Struct, forbid_unknown_fields=True):
    """``why`` is for the trail."""

    why: str | None = None


def decode_order(body: bytes, kind: type[T]) -> T:
    """The body of an order; an empty one stands for an empty object.

    Raises:
        InvalidInput: it isn't one JSON object of known fields.
    """
    return decode(single(body.strip() or b"{}", "order"), kind, "order")


def reason(why: str | None) -> str:
    """The reason within its length.

    Raises:
        InvalidInput: it is longer.
    """
    if why is not None and len(why) > MAX_WHY:
        raise InvalidInput("why", f"is longer than {MAX_WHY} characters")
    return why or ""
