"""Orders of operators on the wire: roll back, resume, try other settings."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from headwater.errors import InvalidInput
from headwater.ingest._fields import decode, single
from headwater.types import Policy

MAX_WHY = 1_000
"""Characters of a reason."""

T = TypeVar("T", bound=msgspec.Struct)


class WireRollback(msgspec.Struct, forbid_unknown_fields=True):
    """``to`` is the number of a kept version, the newest by default; ``why`` is for the trail."""

    to: int | None = None
    why: str | None = None


class WireOrder(msgspec.Struct, forbid_unknown_fields=True):
    """An order that says nothing but ``why``, for the trail."""

    why: str | None = None


class WireChallenger(msgspec.Struct, forbid_unknown_fields=True):
    """``settings`` by dotted name; ``policy`` and ``delta`` say when it takes over: once its lift
    in NDCG@10 is shown to be above ``delta``, or above minus ``delta``. ``canary`` is the share of
    the users, from 0 to 0.5, who get its lists meanwhile.
    """

    settings: dict[str, Any]
    policy: Policy = "better"
    delta: float = 0.0
    canary: float = 0.0
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
