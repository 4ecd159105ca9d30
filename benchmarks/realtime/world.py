"""Made-up users and items, as many as are asked for: tastes, and few items that many know."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headwater.types import Doubles, Event, Item, Longs

CATEGORIES = 100
TASTES = 3
"""Categories that a user likes."""
_LOYALTY = 0.7
"""Share of the events that are on an item of a category that their user likes."""
_CONSTANT = 10.0
"""Added to a rank in Zipf's law (Mandelbrot), so that no single item is a tenth of all events."""
_DRAWN = 10_000


class World:
    """Endless events of ``users`` on ``items``, each in a category; the same for a seed.

    Items are ordered by popularity: probability of the item at rank r, in the catalogue and
    within its category alike, is proportional to 1 / (r + 10).
    """

    def __init__(self, items: int, users: int, seed: int = 0) -> None:
        self.items, self.users = items, users
        self._random = np.random.default_rng(seed)
        self._tastes = self._random.integers(CATEGORIES, size=(users, TASTES))
        self._all = _cumulated(items)
        self._of_category = _cumulated(items // CATEGORIES)

    def catalogue(self) -> list[Item]:
        """Every item, with a category, two tags and a title."""
        return [
            Item(
                item_id=f"i{n}",
                title=f"Item {n}",
                categories=(f"c{n % CATEGORIES}",),
                tags=(f"t{n % 997}", f"t{n % 1_009}"),
            )
            for n in range(self.items)
        ]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Ids of users and items, one event after the other."""
        while True:
            users = self._random.integers(self.users, size=_DRAWN)
            loyal = self._random.random(_DRAWN) < _LOYALTY
            liked = self._tastes[users, self._random.integers(TASTES, size=_DRAWN)]
            items = np.where(
                loyal,
                self._draw(self._of_category) * CATEGORIES + liked,
                self._draw(self._all),
            )
            for user, item in zip(users.tolist(), items.tolist(), strict=True):
                yield f"u{user}", f"i{item}"

    def history(self, events: int, end: float, type: str = "view") -> list[Event]:
        """Events of the hour before ``end``, in seconds since 1970."""
        found = zip(range(events), self.pairs(), strict=False)
        return [
            Event(f"h{n}", type, user, end - 3_600.0 * (1.0 - n / events), item)
            for n, (user, item) in found
        ]

    def _draw(self, cumulated: Doubles) -> Longs:
        ranks: Longs = np.searchsorted(cumulated, self._random.random(_DRAWN) * cumulated[-1])
        return ranks


def _cumulated(n: int) -> Doubles:
    return np.cumsum(1.0 / (np.arange(n) + _CONSTANT))
