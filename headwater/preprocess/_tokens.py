"""What an item is about, as tokens: the words that the content expert compares."""

from __future__ import annotations

import re

from headwater.types import Item

_WORD = re.compile(r"[^\W\d_]{3,}")
_STOP = frozenset({"and", "des", "for", "from", "les", "of", "the", "und", "with"})


CATEGORY = "category:"
"""What a token of a category starts with."""


def tokens_of(item: Item, limit: int) -> list[str]:
    """At most ``limit`` distinct tokens: categories, then tags, attributes, words of the title.

    >>> man = Item("1", title="The Third Man (1949)", categories=("Noir",), tags=("classic",))
    >>> tokens_of(man, 3)
    ['category:noir', 'tag:classic', 'word:third']
    """
    found = [f"{CATEGORY}{name.casefold()}" for name in item.categories]
    found += [f"tag:{name.casefold()}" for name in item.tags]
    for name, value in item.attributes.items():
        values = value if isinstance(value, list) else [value]
        found += [
            f"attribute:{name}={one.casefold()}" for one in values if isinstance(one, str) and one
        ]
    words = _WORD.findall((item.title or "").casefold())
    found += [f"word:{word}" for word in words if word not in _STOP]
    return list(dict.fromkeys(found))[:limit]
