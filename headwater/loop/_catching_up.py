"""Folds a log up to an offset, chunk by chunk: a short way by itself, a long one on several cores.

A third of what an event costs is reading it and finding the rows of its ids, a good third is
histories and cleaning, the rest is counting; and what comes later tells nothing to what comes
before. So a chunk is counted in other threads while the next one is arranged in another and the one
behind that is read and named here. Each part of the state still sees every chunk in order: the bits
are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from headwater.log import EventsLog
from headwater.log.chunks import Chunk, bounds
from headwater.loop._fold import Fold, Prepared
from headwater.types import Gone

READ = 1_000
"""Entries folded at a time."""
_FAR = 5_000
"""Entries from which on the way is long. Those that come in while a server answers are fewer: it
has no core to spare for them."""
_COUNTERS = 2
"""One for each expert that is counted beside, or one would wait for the interpreter to begin."""
_AHEAD = 2
"""Chunks that are named and not entered yet: one that is being arranged, and one that waits."""


def folded(fold: Fold, events: EventsLog, end: int) -> Iterator[tuple[Chunk, Gone]]:
    """Folds what stands behind ``fold.offset``, through ``end`` or a little further.

    Yields each chunk once it is folded, and what was let go of behind it.

    Raises:
        Dropped: the log begins later.
    """
    if end - fold.offset >= _FAR:
        with (
            ThreadPoolExecutor(_COUNTERS, "count") as counters,
            ThreadPoolExecutor(1, "arrange") as arranger,
        ):
            yield from _far(fold, events, end, counters, arranger)
    while fold.offset < end:
        read = _next(fold, events, fold.offset, end)
        batch, removed = fold.batch(read)
        if len(batch):
            fold.model.count(batch)
        yield read, fold.forget(read, removed)


def _far(
    fold: Fold, events: EventsLog, end: int, counters: Executor, arranger: Executor
) -> Iterator[tuple[Chunk, Gone]]:
    ahead: deque[tuple[Chunk, Future[Prepared]]] = deque()
    named, sweeps = fold.offset, fold.sweeps_behind

    def name() -> None:
        nonlocal named
        # What a sweep lets go of has to be gone before anything behind it is named.
        while named < end and len(ahead) < _AHEAD and not (ahead and sweeps(ahead[-1][0])):
            read = _next(fold, events, named, end)
            ahead.append((read, arranger.submit(fold.arrange, *fold.name(read))))
            _, named, _ = bounds(read)

    while fold.offset < end:
        name()
        read, prepared = ahead.popleft()
        batch, removed = fold.enter(prepared.result())
        counting = fold.model.count_beside(batch, counters) if len(batch) else []
        if not sweeps(read):
            name()
        for one in counting:
            one.result()
        yield read, fold.forget(read, removed)


def _next(fold: Fold, events: EventsLog, after: int, end: int) -> Chunk:
    return fold.until_cut(events.chunk(after, min(READ, end - after)))
