"""Items on the wire: the body of ``PUT /v1/items/{id}``, and many at once -> ``Item``."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from headwater.errors import InvalidInput
from headwater.ingest._fields import (
    MAX_FLOAT32,
    MAX_ID_LENGTH,
    Identifier,
    Refused,
    decode,
    identifier,
    lines,
    single,
    text,
)
from headwater.ingest._times import seconds
from headwater.types import Item

MAX_TITLE_LENGTH = 2_000
MAX_TEXT_LENGTH = 100_000
MAX_LABELS = 200
MAX_ATTRIBUTES = 200
MAX_ATTRIBUTE_LENGTH = 10_000
MAX_VECTORS = 8
MAX_DIMENSION = 8_192


class WireItem(msgspec.Struct, forbid_unknown_fields=True):
    """An item as it is sent; null counts as not given."""

    item_id: Identifier | None = None
    title: str | None = None
    categories: list[str] | str | None = None
    tags: list[str] | str | None = None
    price: float | None = None
    text: str | None = None
    attributes: dict[str, str | float | bool | list[str] | None] | None = None
    vectors: dict[str, list[float]] | None = None
    published_at: str | float | None = None
    available: bool | None = None


def decode_item(
    body: bytes, item_id: str | None, dimensions: Mapping[str, int] | None = None
) -> Item:
    """One item.

    Args:
        body: UTF-8 JSON, one object.
        item_id: the id of the path; the body may repeat it.
        dimensions: of the vectors that other items have, by name.

    Raises:
        InvalidInput: names the field at fault.
    """
    return checked_item(
        decode(single(body, "item"), WireItem, "item"), item_id, dict(dimensions or {})
    )


def decode_items(
    body: bytes, *, max_items: int, dimensions: Mapping[str, int] | None = None
) -> list[Item | Refused]:
    """Many items, in order: a JSON array of them, or a line each (JSONL).

    Args:
        body: UTF-8.
        max_items: the most elements of one body.
        dimensions: of the vectors that other items have, by name; the first vector of any other
            name says for those behind it.

    Raises:
        TooLarge: more than ``max_items``.
        InvalidInput: the body is neither; a line that isn't JSON spoils only itself.
    """
    items: list[Item | Refused] = []
    known = dict(dimensions or {})
    for raw in lines(body, max_items, "items"):
        try:
            items.append(checked_item(decode(raw, WireItem, "item"), None, known))
        except InvalidInput as error:
            items.append(Refused(error.field, error.reason, bytes(raw)))
    return items


def checked_item(sent: WireItem, item_id: str | None, dimensions: dict[str, int]) -> Item:
    """The item within its limits; ``InvalidInput`` names the field that isn't.

    Args:
        sent: as it came.
        item_id: the id of the path, if there is one.
        dimensions: of vectors, by name; the item's own are added.
    """
    own = None if sent.item_id is None else identifier(sent.item_id, "item_id")
    known = own if item_id is None else identifier(item_id, "item_id")
    if known is None:
        raise InvalidInput("item_id", "is missing")
    if own is not None and own != known:
        raise InvalidInput("item_id", "is another one in the body than in the path")
    if sent.price is not None and not math.isfinite(sent.price):
        raise InvalidInput("price", "is not a finite number")
    return Item(
        item_id=known,
        title=text(sent.title, "title", MAX_TITLE_LENGTH),
        categories=_labels(sent.categories, "categories"),
        tags=_labels(sent.tags, "tags"),
        price=sent.price,
        text=text(sent.text, "text", MAX_TEXT_LENGTH),
        attributes=checked_attributes(sent.attributes or {}),
        vectors=_vectors(sent.vectors or {}, dimensions),
        published_at=(
            None if sent.published_at is None else seconds(sent.published_at, "published_at")
        ),
        available=sent.available is not False,
    )


def _labels(sent: list[str] | str | None, field: str) -> tuple[str, ...]:
    """Distinct labels in order; a text holds them separated by ``|``."""
    parts = sent.split("|") if isinstance(sent, str) else sent or []
    labels = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if len(labels) > MAX_LABELS:
        raise InvalidInput(field, f"holds more than {MAX_LABELS} labels")
    if any(len(label) > MAX_ID_LENGTH for label in labels):
        raise InvalidInput(field, f"holds a label of more than {MAX_ID_LENGTH} characters")
    return labels


def checked_attributes(
    sent: Mapping[str, str | float | bool | list[str] | None],
) -> dict[str, str | float | bool | list[str]]:
    """Those that are given, within their limits; ``InvalidInput`` says which aren't."""
    if len(sent) > MAX_ATTRIBUTES:
        raise InvalidInput("attributes", f"holds more than {MAX_ATTRIBUTES} names")
    attributes: dict[str, str | float | bool | list[str]] = {}
    for name, value in sent.items():
        identifier(name, "attributes")
        if value is None:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput("attributes", "holds a number that isn't finite")
        texts = value if isinstance(value, list) else [value]
        if len(texts) > MAX_LABELS or any(
            isinstance(one, str) and len(one) > MAX_ATTRIBUTE_LENGTH for one in texts
        ):
            raise InvalidInput(
                "attributes",
                f"holds a list of more than {MAX_LABELS} texts, or a text of more than "
                f"{MAX_ATTRIBUTE_LENGTH} characters",
            )
        attributes[name] = value
    return attributes


def _vectors(sent: Mapping[str, list[float]], dimensions: dict[str, int]) -> dict[str, list[float]]:
    if len(sent) > MAX_VECTORS:
        raise InvalidInput("vectors", f"holds more than {MAX_VECTORS} names")
    for name, vector in sent.items():
        identifier(name, "vectors")
        if not 1 <= len(vector) <= MAX_DIMENSION:
            raise InvalidInput("vectors", f"must have from 1 to {MAX_DIMENSION} numbers each")
        if not all(abs(number) <= MAX_FLOAT32 for number in vector):
            raise InvalidInput("vectors", "holds a number that isn't finite in single precision")
        if len(vector) != (known := dimensions.get(name, len(vector))):
            raise InvalidInput(
                "vectors",
                f"{name} has {len(vector)} numbers, and {known} in the items before; vectors of "
                "another kind need another name",
            )
    dimensions.update((name, len(vector)) for name, vector in sent.items())
    return dict(sent)
