"""Events on the wire: the body of ``POST /v1/events`` -> ``Event``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import repeat
from typing import Annotated, Any

import msgspec

from headwater.config import Config, EventType
from headwater.errors import InvalidInput, TooLarge
from headwater.ingest._fields import (
    ANONYMOUS,
    MAX_FLOAT32,
    MAX_ID_LENGTH,
    Identifier,
    Refused,
    decode,
    identifier,
    split,
    text,
    user,
)
from headwater.ingest._times import MILLISECONDS_FROM, seconds
from headwater.log import MAX_AHEAD
from headwater.types import Event

MAX_SKEW = 60.0
"""A client's clock that is further off than this, by ``sent_at``, is corrected; less is latency."""

MAX_TYPE_LENGTH = 64
MAX_LABEL_LENGTH = 256
MAX_POSITION = 1_000_000
MAX_CONTEXT_BYTES = 8_192
MAX_CONTEXT_DEPTH = 8

_DAY = 86400


class WireEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event as it is sent; null counts as not given."""

    type: str
    event_id: Identifier | None = None
    user_id: Identifier | None = None
    anonymous_id: Identifier | None = None
    item_id: Identifier | None = None
    timestamp: str | float | None = None
    sent_at: str | float | None = None
    session_id: Identifier | None = None
    value: float | None = None
    recommendation_id: Identifier | None = None
    position: int | None = None
    scenario: str | None = None
    surface: str | None = None
    context: dict[str, Any] | None = None


_PlainId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]


class _PlainEvent(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One that says who did what when, and nothing else but perhaps a value."""

    type: Annotated[str, msgspec.Meta(max_length=MAX_TYPE_LENGTH)]
    event_id: _PlainId
    user_id: _PlainId
    item_id: _PlainId
    timestamp: Annotated[float, msgspec.Meta(ge=0.0)]
    value: Annotated[float, msgspec.Meta(ge=-MAX_FLOAT32, le=MAX_FLOAT32)] | None = None


_decode_plain = msgspec.json.Decoder(list[_PlainEvent]).decode
_decode_all = msgspec.json.Decoder(list[WireEvent]).decode


class _Id(msgspec.Struct):
    event_id: Identifier


@dataclass(slots=True)
class Decoded:
    """The elements of one body, in order; ``single`` where it was one object, not an array."""

    elements: list[Event | Refused]
    single: bool


def decode_events(
    body: bytes,
    received_at: float,
    *,
    config: Config,
    max_events: int,
    source: str = "",
    idempotency_key: str | None = None,
) -> Decoded:
    """The events of a body, one object or an array of them; a bad one doesn't spoil the others.

    Unknown fields are refused: a misspelt one would lose its data quietly.
    ``sent_at`` is the client's clock at the moment of sending; where it is more
    than a minute off the server's, the timestamp is moved by the difference.
    An event without ``event_id`` gets one: the idempotency key (of an array: the
    key, a slash and the element's index), or else a hash of the content as it
    was sent. Where that content has no timestamp either, the day it was received
    on (UTC) counts as part of it: sent twice on one day, it is one event.

    Args:
        body: UTF-8 JSON.
        received_at: the server's clock; the timestamp of events that bring none.
        config: its event types say which events need an item.
        max_events: the most elements of one body.
        source: scopes the event ids; stays with the event.
        idempotency_key: the request's ``Idempotency-Key``.

    Raises:
        TooLarge: more than ``max_events`` elements.
        InvalidInput: the body isn't JSON, or neither object nor array, or the key is no id.
    """
    if idempotency_key is not None:
        identifier(idempotency_key, "Idempotency-Key")
    types = config.event_types
    if body[:1] == b"[" and idempotency_key is None:
        plain = None if source else _plain(body, received_at, types, max_events)
        if plain is not None:
            return Decoded(plain, single=False)
        try:
            sent = _decode_all(body)
            if len(sent) <= max_events:
                return Decoded(
                    [checked_event(one, received_at, types, source) for one in sent], single=False
                )
        except (InvalidInput, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # One by one, then, to find out what is wrong with which.
    raws, many = split(body)
    if len(raws) > max_events:
        raise TooLarge("body", f"holds {len(raws)} events; send at most {max_events} at a time")
    elements: list[Event | Refused] = []
    for index, raw in enumerate(raws):
        key = f"{idempotency_key}/{index}" if idempotency_key and many else idempotency_key
        try:
            elements.append(
                checked_event(decode(raw, WireEvent, "event"), received_at, types, source, key)
            )
        except InvalidInput as error:
            event_id = _event_id_of(raw) or key
            elements.append(Refused(error.field, error.reason, bytes(raw), event_id))
    return Decoded(elements, single=not many)


def _plain(
    body: bytes, received_at: float, types: Mapping[str, EventType], most: int
) -> list[Event | Refused] | None:
    """The events of an array, if all are as most clients send them: one pass finds their limits
    kept. ``None`` where a closer look is needed, be it at one of them.
    """
    try:
        sent = _decode_plain(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    latest = min(received_at + MAX_AHEAD, MILLISECONDS_FROM)
    if not 0 < len(sent) <= most or max([one.timestamp for one in sent]) >= latest:
        return None
    users = [one.user_id for one in sent]
    if not types.keys() >= {one.type for one in sent} or any(
        map(str.startswith, users, repeat(ANONYMOUS))
    ):
        return None
    return [
        Event(one.event_id, one.type, one.user_id, one.timestamp, one.item_id, one.value)
        for one in sent
    ]


def checked_event(
    sent: WireEvent,
    received_at: float,
    types: Mapping[str, EventType],
    source: str,
    key: str | None = None,
) -> Event:
    """The event within its limits; ``InvalidInput`` names the field that isn't."""
    if not sent.type:
        raise InvalidInput("type", "is empty")
    if len(sent.type) > MAX_TYPE_LENGTH:
        raise InvalidInput("type", f"is longer than {MAX_TYPE_LENGTH} characters")
    user_id = user(sent.user_id, sent.anonymous_id)
    if user_id is None:
        raise InvalidInput("user_id", "is missing; send user_id or anonymous_id")
    item_id = None if sent.item_id is None else identifier(sent.item_id, "item_id")
    kind = types.get(sent.type)
    if item_id is None and kind is not None and kind.polarity != 0:
        raise InvalidInput("item_id", f"is missing; a {sent.type} is of an item")
    if sent.value is not None and not abs(sent.value) <= MAX_FLOAT32:
        raise InvalidInput("value", "is not finite in single precision")
    if sent.position is not None and not 0 <= sent.position <= MAX_POSITION:
        raise InvalidInput("position", f"must be from 0 to {MAX_POSITION}")
    if sent.context is not None:
        _check_context(sent.context)
    timestamp, known_time = _timestamp(sent, received_at)
    session_id = _optional(sent.session_id, "session_id")
    recommendation_id = _optional(sent.recommendation_id, "recommendation_id")
    scenario = text(sent.scenario, "scenario", MAX_LABEL_LENGTH)
    surface = text(sent.surface, "surface", MAX_LABEL_LENGTH)
    event_id = _optional(sent.event_id, "event_id") or key
    if event_id is None:
        event_id = _hash(
            sent.type,
            user_id,
            item_id,
            known_time,
            sent.value,
            session_id,
            recommendation_id,
            sent.position,
            scenario,
            surface,
            sent.context,
        )
    return Event(
        event_id=event_id,
        type=sent.type,
        user_id=user_id,
        timestamp=timestamp,
        item_id=item_id,
        value=sent.value,
        session_id=session_id,
        recommendation_id=recommendation_id,
        position=sent.position,
        scenario=scenario,
        surface=surface,
        context=sent.context,
        anonymous=user_id.startswith(ANONYMOUS),
        source=source,
    )


def _optional(value: Identifier | None, field: str) -> str | None:
    return None if value is None else identifier(value, field)


def _timestamp(sent: WireEvent, received_at: float) -> tuple[float, float | str]:
    """The event's time, and what of it is the same when the event is sent again."""
    sent_at = None if sent.sent_at is None else seconds(sent.sent_at, "sent_at")
    if sent.timestamp is None:
        return received_at, f"day {received_at // _DAY:.0f}"
    given = seconds(sent.timestamp, "timestamp")
    timestamp = given
    if sent_at is not None and abs(received_at - sent_at) > MAX_SKEW:
        timestamp += received_at - sent_at
    if timestamp < 0:
        raise InvalidInput("timestamp", "is before 1970")
    if timestamp > received_at + MAX_AHEAD:
        raise InvalidInput(
            "timestamp",
            "is more than 5 minutes ahead of the server's clock; send sent_at beside it where "
            "the client's clock is wrong",
        )
    return timestamp, given


def _hash(*content: Any) -> str:
    return blake2b(msgspec.json.encode(content, order="sorted"), digest_size=16).hexdigest()


def _check_context(context: dict[str, Any]) -> None:
    if _depth(context, MAX_CONTEXT_DEPTH + 1) > MAX_CONTEXT_DEPTH:
        raise InvalidInput("context", f"is nested more than {MAX_CONTEXT_DEPTH} deep")
    if len(msgspec.json.encode(context)) > MAX_CONTEXT_BYTES:
        raise InvalidInput("context", f"is larger than {MAX_CONTEXT_BYTES} bytes of JSON")


def _depth(value: Any, limit: int) -> int:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidInput("context", "holds an integer of more than 64 bits; send it as a string")
    if limit == 0 or not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(one, limit - 1) for one in inner), default=0)


def _event_id_of(raw: msgspec.Raw) -> str | None:
    """The id that a refused element may still have been given."""
    try:
        return identifier(msgspec.json.decode(raw, type=_Id).event_id, "event_id")
    except (msgspec.DecodeError, InvalidInput, UnicodeDecodeError, RecursionError):
        return None
