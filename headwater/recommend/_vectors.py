"""User vectors that are kept, so that who asks again isn't encoded again."""

from __future__ import annotations

from collections import OrderedDict

from headwater.model import SequenceExpert, gap_buckets
from headwater.types import Contexts, Floats


class UserVectors:
    """What was encoded, by what it was encoded from; the least recently used goes first.

    A vector depends on the items of a history, on their event types, on the buckets of the times
    from each to the next and from the last one to the request, and on the model. All but the
    model are the key, as they are, so that a vector is found again exactly while it would come
    out the same; whoever changes the model calls ``clear``.

    Histories that were encoded together are kept together, so that one look finds them all. What
    is found is, bit for bit, what would be computed. ``hits`` and ``misses`` count calls.

    Args:
        most: vectors kept; each takes about ``6 L + 4 D`` bytes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.hits = 0
        self.misses = 0
        self._kept: OrderedDict[tuple[bytes, bytes, bytes], Floats] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def of(self, sequence: SequenceExpert, contexts: Contexts) -> Floats:
        """(B, D + 1) as ``sequence.encode(contexts)`` gives them, read-only."""
        gaps = gap_buckets(contexts.history_times, contexts.history_items, contexts.times)
        key = (contexts.history_items.tobytes(), contexts.history_types.tobytes(), gaps.tobytes())
        found = self._kept.get(key)
        if found is not None:
            self.hits += 1
            self._kept.move_to_end(key)
            return found
        self.misses += 1
        vectors = sequence.encode(contexts)
        vectors.setflags(write=False)
        if len(vectors) <= self.most:
            self._kept[key] = vectors
            self._size += len(vectors)
            while self._size > self.most:
                self._size -= len(self._kept.popitem(last=False)[1])
        return vectors

    def clear(self) -> None:
        """Forgets all: the model has changed."""
        self._kept.clear()
        self._size = 0
