"""What an item is about, as tokens: the words that the content expert compares."""

from __future__ import annotations

import re

from headwater.types import Item

_WORD = re.compile(r"[^\W\d_]{3,}")
_EXACT = 2.0**53
"""Whole numbers below it are what they say."""
_STOP = frozenset({"and", "des", "for", "from", "les", "of", "the", "und", "with"})


CATEGORY = "category:"
"""What a token of a category starts with."""


def tokens_of(item: Item, limit: int) -> list[str]:
    """At most ``limit`` distinct tokens: categories, then tags, attributes, words of the title.

    A whole number, as a year is, is a label like a text; any other number is a quantity, and
    two items hardly ever have the same.

    >>> man = Item("1", title="The Third Man (1949)", categories=("Noir",), tags=("classic",))
    >>> tokens_of(man, 3)
    ['category:noir', 'tag:classic', 'word:third']
    >>> tokens_of(Item("2", attributes={"year": 1949, "restored": True, "hours": 1.73}), 3)
    ['attribute:year=1949', 'attribute:restored=true']
    """
    found = [f"{CATEGORY}{name.casefold()}" for name in item.categories]
    found += [f"tag:{name.casefold()}" for name in item.tags]
    for name, value in item.attributes.items():
        values = value if isinstance(value, list) else [value]
        found += [f"attribute:{name}={_text(one)}" for one in values if _is_label(one)]
    words = _WORD.findall((item.title or "").casefold())
    found += [f"word:{word}" for word in words if word not in _STOP]
    return list(dict.fromkeys(found))[:limit]


def _is_label(value: str | float | bool) -> bool:
    if isinstance(value, str):
        return value != ""
    return float(value).is_integer() and abs(value) < _EXACT


def _text(value: str | float | bool) -> str:
    if isinstance(value, str):
        return value.casefold()
    return str(value).lower() if isinstance(value, bool) else str(int(value))
