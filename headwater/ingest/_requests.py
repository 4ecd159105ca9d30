"""Requests for recommendations on the wire: query parameters or a JSON body -> ``Request``."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headwater.config import Config
from headwater.errors import InvalidInput
from headwater.ingest._fields import Identifier, decode, identifier, split, user
from headwater.types import Request

DEFAULT_N = 10
MAX_SESSION_ITEMS = 1_000
MAX_EXCLUDED = 10_000


class WireRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A request for recommendations as it is sent; null counts as not given."""

    n: int | None = None
    user_id: Identifier | None = None
    anonymous_id: Identifier | None = None
    items: list[Identifier] | None = None
    exclude: list[Identifier] | None = None


def decode_request(body: bytes, *, config: Config) -> Request:
    """The body of ``POST /v1/recommendations``: a user, or the items of a session, newest last.

    Raises:
        InvalidInput: as :func:`build_request`, or the body isn't one JSON object of known fields.
    """
    raws, many = split(body)
    if many:
        raise InvalidInput("body", "is a list; send one object")
    sent = decode(raws[0], WireRequest, "body")
    return build_request(
        config=config,
        n=sent.n,
        user_id=sent.user_id,
        anonymous_id=sent.anonymous_id,
        items=sent.items,
        exclude=sent.exclude or (),
    )


def build_request(
    *,
    config: Config,
    n: int | None = None,
    user_id: Identifier | None = None,
    anonymous_id: Identifier | None = None,
    items: Sequence[Identifier] | None = None,
    exclude: Sequence[Identifier] = (),
) -> Request:
    """A request within its limits; 10 items where ``n`` doesn't say.

    Raises:
        InvalidInput: names what is missing, contradictory or too much.
    """
    n = DEFAULT_N if n is None else n
    if not 1 <= n <= config.recommend.max_n:
        raise InvalidInput("n", f"must be from 1 to {config.recommend.max_n} (recommend.max_n)")
    who = user(user_id, anonymous_id)
    if who is None and items is None:
        raise InvalidInput("user_id", "is missing; send user_id, anonymous_id or items")
    if who is not None and items is not None:
        raise InvalidInput("items", "can't stand beside a user, whose history is known already")
    return Request(
        n=n,
        user_id=who,
        session_items=_ids(items or (), "items", MAX_SESSION_ITEMS),
        exclude=frozenset(_ids(exclude, "exclude", MAX_EXCLUDED)),
    )


def _ids(values: Sequence[Identifier], field: str, most: int) -> tuple[str, ...]:
    if len(values) > most:
        raise InvalidInput(field, f"holds {len(values)} ids; send at most {most}")
    return tuple(identifier(value, field) for value in values)
