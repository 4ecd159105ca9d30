"""What an item is about, as tokens: the words that the content expert compares."""

from __future__ import annotations

import re
from functools import lru_cache
from math import floor, log2

import numpy as np

from headwater.types import Doubles, Item

_WORD = re.compile(r"[^\W\d_]{3,}")
_EXACT = 2.0**53
"""Whole numbers below it are what they say."""
_STOP = frozenset({"and", "des", "for", "from", "les", "of", "the", "und", "with"})


CATEGORY = "category:"
"""What a token of a category starts with."""

_TABLES, _BITS = 4, 6
"""Tokens of a vector, and the hyperplanes that each tells the sides of."""
_HYPERPLANES_KEPT = 8
"""Dimensions whose hyperplanes are kept: a catalogue has a few kinds of vectors."""


def tokens_of(item: Item, limit: int) -> list[str]:
    """At most ``limit`` distinct tokens: categories, then tags, the band of the price, attributes,
    given vectors, words of the title.

    A whole number, as a year is, is a label like a text; any other number is a quantity, and
    two items hardly ever have the same. Prices are of one band from one power of two to the
    next. A vector is told by the sides of random hyperplanes on which it lies (Charikar, STOC
    2002): the smaller the angle between two, the more tokens they share.

    >>> man = Item("1", title="The Third Man (1949)", categories=("Noir",), tags=("classic",))
    >>> tokens_of(man, 3)
    ['category:noir', 'tag:classic', 'word:third']
    >>> tokens_of(Item("2", attributes={"year": 1949, "restored": True, "hours": 1.73}), 3)
    ['attribute:year=1949', 'attribute:restored=true']
    >>> tokens_of(Item("3", price=9.5), 3) == tokens_of(Item("4", price=12.0), 3) == ["price:3"]
    True
    """
    found = [f"{CATEGORY}{name.casefold()}" for name in item.categories]
    found += [f"tag:{name.casefold()}" for name in item.tags]
    if item.price is not None and item.price > 0:
        found.append(f"price:{floor(log2(item.price))}")
    for name, value in item.attributes.items():
        values = value if isinstance(value, list) else [value]
        found += [f"attribute:{name}={_text(one)}" for one in values if _is_label(one)]
    for name, vector in item.vectors.items():
        found += [f"vector:{name}:{table}={sides}" for table, sides in enumerate(_sides(vector))]
    words = _WORD.findall((item.title or "").casefold())
    found += [f"word:{word}" for word in words if word not in _STOP]
    return list(dict.fromkeys(found))[:limit]


def _sides(vector: list[float]) -> list[int]:
    """By table, the sides of its hyperplanes as the bits of a number; none for zeros alone."""
    given = np.array(vector)
    if not given.any():
        return []
    above = _hyperplanes(len(given)) @ (given / np.abs(given).max()) > 0
    return [int(bits) for bits in above.reshape(_TABLES, _BITS) @ (1 << np.arange(_BITS))]


@lru_cache(_HYPERPLANES_KEPT)
def _hyperplanes(dimension: int) -> Doubles:
    """(tables * bits, dimension) normals; the same in every process, whatever the seed."""
    random = np.random.Generator(np.random.Philox(key=dimension))
    return random.standard_normal((_TABLES * _BITS, dimension))


def _is_label(value: str | float | bool) -> bool:
    if isinstance(value, str):
        return value != ""
    return float(value).is_integer() and abs(value) < _EXACT


def _text(value: str | float | bool) -> str:
    if isinstance(value, str):
        return value.casefold()
    return str(value).lower() if isinstance(value, bool) else str(int(value))
