"""The list of what is popular, kept for as long as the state that it came from is the newest."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from secrets import token_hex

import msgspec

from headwater.api._follows import Follows
from headwater.types import Recommendations


class PopularList:
    """One list, the longest that was asked for; a shorter one is its beginning.

    It doesn't depend on who asks or when, only on the state; ranking every item for each
    request takes longer than everything else of the answer
    (docs/decisions/0006-the-popular-list-is-kept.md). For the model thread alone; ``hits``
    and ``misses`` may be read from any.
    """

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self._state: tuple[int, int, int, int] | None = None
        self._n = 0
        self._list: Recommendations | None = None

    def of(
        self, follower: Follows, n: int, exclude: Collection[str] = frozenset()
    ) -> Recommendations:
        """The first n that aren't excluded, under an id of their own."""
        state = (follower.offset, follower.epoch, follower.version, follower.sequence)
        kept, longest = self._list, n + len(exclude)
        if kept is None or state != self._state or longest > self._n:
            self.misses += 1
            kept = self._list = follower.popular(longest)
            self._state, self._n = state, longest
        else:
            self.hits += 1
        allowed = (item for item in kept.items if item.item_id not in exclude)
        return msgspec.structs.replace(
            kept, recommendation_id=token_hex(16), items=list(islice(allowed, n))
        )
