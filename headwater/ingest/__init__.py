"""Stage 1, receive: what comes in from outside -> ``Event``, ``Item``, ``User``, ``Request``.

The wire: pure functions from bytes to nouns. A bad element is ``Refused`` by
itself, with the field at fault and the reason; a body that can't be taken apart
raises ``InvalidInput``. Files: Parquet, CSV, TSV, JSONL and RecBole atomic files,
read by the column.

Nothing here touches a log: the caller appends events and dead letters.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.ingest._events import Decoded, WireEvent, decode_events
from headwater.ingest._fields import ANONYMOUS, MAX_ID_LENGTH, Refused, identifier
from headwater.ingest._items import WireItem, decode_item, decode_items
from headwater.ingest._orders import (
    WireChallenger,
    WireOrder,
    WireRollback,
    decode_order,
    reason,
)
from headwater.ingest._patches import patch_item, patch_user
from headwater.ingest._requests import DEFAULT_N, WireRequest, build_request, decode_request
from headwater.ingest._users import WireUser, decode_user, decode_users

if TYPE_CHECKING:
    from headwater.ingest._catalogue import Items, read_items
    from headwater.ingest._exported import (
        EXPORT_KEY,
        JSON_COLUMNS,
        exported_rows,
        is_exported,
        read_exported,
    )
    from headwater.ingest._interactions import Interactions, read_interactions
    from headwater.ingest._profiles import Users, read_users

__all__ = [
    "ANONYMOUS",
    "DEFAULT_N",
    "EXPORT_KEY",
    "JSON_COLUMNS",
    "MAX_ID_LENGTH",
    "Decoded",
    "Interactions",
    "Items",
    "Refused",
    "Users",
    "WireChallenger",
    "WireEvent",
    "WireItem",
    "WireOrder",
    "WireRequest",
    "WireRollback",
    "WireUser",
    "build_request",
    "decode_events",
    "decode_item",
    "decode_items",
    "decode_order",
    "decode_request",
    "decode_user",
    "decode_users",
    "exported_rows",
    "identifier",
    "is_exported",
    "patch_item",
    "patch_user",
    "read_exported",
    "read_interactions",
    "read_items",
    "read_users",
    "reason",
]

_OF_FILES = {
    "EXPORT_KEY": "_exported",
    "JSON_COLUMNS": "_exported",
    "Interactions": "_interactions",
    "Items": "_catalogue",
    "Users": "_profiles",
    "exported_rows": "_exported",
    "is_exported": "_exported",
    "read_exported": "_exported",
    "read_interactions": "_interactions",
    "read_items": "_catalogue",
    "read_users": "_profiles",
}
"""What reads files, in which module: a server starts without the data frames that it takes."""


def __getattr__(name: str) -> Any:
    if name not in _OF_FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_OF_FILES[name]}"), name)
