"""Users on the wire: the body of ``PUT /v1/users/{id}``, and many at once -> ``User``."""

from __future__ import annotations

import msgspec

from headwater.errors import InvalidInput
from headwater.ingest._fields import Identifier, Refused, decode, identifier, lines, single
from headwater.ingest._items import checked_attributes
from headwater.types import User


class WireUser(msgspec.Struct, forbid_unknown_fields=True):
    """A user as it is sent; null counts as not given."""

    user_id: Identifier | None = None
    attributes: dict[str, str | float | bool | list[str] | None] | None = None


def decode_user(body: bytes, user_id: str | None) -> User:
    """One user.

    Args:
        body: UTF-8 JSON, one object.
        user_id: the id of the path; the body may repeat it.

    Raises:
        InvalidInput: names the field at fault.
    """
    return checked_user(decode(single(body, "user"), WireUser, "user"), user_id)


def decode_users(body: bytes, *, max_users: int) -> list[User | Refused]:
    """Many users, in order: a JSON array of them, or a line each (JSONL).

    Raises:
        TooLarge: more than ``max_users``.
        InvalidInput: the body is neither; a line that isn't JSON spoils only itself.
    """
    users: list[User | Refused] = []
    for raw in lines(body, max_users, "users"):
        try:
            users.append(checked_user(decode(raw, WireUser, "user"), None))
        except InvalidInput as error:
            users.append(Refused(error.field, error.reason, bytes(raw)))
    return users


def checked_user(sent: WireUser, user_id: str | None) -> User:
    """The user within its limits; ``InvalidInput`` names the field that isn't."""
    own = None if sent.user_id is None else identifier(sent.user_id, "user_id")
    known = own if user_id is None else identifier(user_id, "user_id")
    if known is None:
        raise InvalidInput("user_id", "is missing")
    if own is not None and own != known:
        raise InvalidInput("user_id", "is another one in the body than in the path")
    return User(known, checked_attributes(sent.attributes or {}))
