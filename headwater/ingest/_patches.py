"""Changes of part of an item or user: JSON merge patches (RFC 7396) on what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headwater.errors import InvalidInput
from headwater.ingest._fields import convert, known_fields, single
from headwater.ingest._items import WireItem, checked_item
from headwater.ingest._users import WireUser, checked_user
from headwater.types import Item, User


def patch_item(body: bytes, item: Item, dimensions: Mapping[str, int] | None = None) -> Item:
    """The item with the fields of the body over its own; null removes a field, or a name in one.

    Args:
        body: UTF-8 JSON.
        item: what is known of it.
        dimensions: of the vectors that items have, by name.

    Raises:
        InvalidInput: the body is no JSON object, or names the field at fault.
    """
    sent = convert(_merged(body, item, WireItem), WireItem, "item")
    return checked_item(sent, item.item_id, dict(dimensions or {}))


def patch_user(body: bytes, user: User) -> User:
    """Likewise of a user."""
    return checked_user(convert(_merged(body, user, WireUser), WireUser, "user"), user.user_id)


def _merged(body: bytes, entry: Item | User, kind: type[msgspec.Struct]) -> dict[str, Any]:
    raw = single(body, "object")
    try:
        patch = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("body", f"is not a JSON object: {error}") from None
    known_fields(patch, kind, "body")
    known = msgspec.structs.asdict(entry)
    return {**known, **{name: _over(known.get(name), value) for name, value in patch.items()}}


def _over(known: Any, patch: Any) -> Any:
    """``patch`` over ``known``: objects name by name, everything else as a whole."""
    if not isinstance(patch, dict):
        return patch
    merged = {**known} if isinstance(known, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged
