"""Folds a log up to an offset, chunk by chunk: a short way by itself, a long one on two cores.

Half of what an event costs is ids, histories and cleaning, half is counting, and what is
counted tells nothing to the other half. So a chunk is counted in other threads while the next one
is read and prepared. Each part of the state still sees every chunk in order: the bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from headwater.log import EventsLog
from headwater.log.chunks import Chunk
from headwater.loop._fold import Fold, Prepared
from headwater.types import Gone

READ = 1_000
"""Entries folded at a time."""
_FAR = 5_000
"""Entries from which on the way is long. Those that come in while a server answers are fewer: it
has no core to spare for them."""
_THREADS = 2
"""One for each expert that is counted beside, or one would wait for the interpreter to begin."""


def folded(fold: Fold, events: EventsLog, end: int) -> Iterator[tuple[Chunk, Gone]]:
    """Folds what stands behind ``fold.offset``, through ``end`` or a little further.

    Yields each chunk once it is folded, and what was let go of behind it.

    Raises:
        Dropped: the log begins later.
    """
    if end - fold.offset >= _FAR:
        with ThreadPoolExecutor(_THREADS, "count") as threads:
            yield from _far(fold, events, end, threads)
    while fold.offset < end:
        read = _next(fold, events, fold.offset, end)
        batch, removed = fold.batch(read)
        if len(batch):
            fold.model.count(batch)
        yield read, fold.forget(read, removed)


def _far(
    fold: Fold, events: EventsLog, end: int, threads: Executor
) -> Iterator[tuple[Chunk, Gone]]:
    read = _next(fold, events, fold.offset, end)
    prepared: Prepared | None = fold.prepare(read)
    while prepared is not None:
        batch, removed = fold.enter(prepared)
        counting = fold.model.count_beside(batch, threads) if len(batch) else []
        following = prepared = None
        # What a sweep lets go of has to be gone before anything else is prepared.
        if fold.offset < end and not fold.sweeps_behind(read):
            following = _next(fold, events, fold.offset, end)
            prepared = fold.prepare(following)
        for one in counting:
            one.result()
        yield read, fold.forget(read, removed)
        if following is not None:
            read = following
        elif fold.offset < end:
            read = _next(fold, events, fold.offset, end)
            prepared = fold.prepare(read)


def _next(fold: Fold, events: EventsLog, after: int, end: int) -> Chunk:
    return fold.until_cut(events.chunk(after, min(READ, end - after)))
