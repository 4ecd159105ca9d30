"""A part of a micro-batch: chosen rows of it, with their contexts."""

from __future__ import annotations

import numpy as np

from headwater.types import Batch, Contexts, Longs


def taken(batch: Batch, rows: Longs) -> Batch:
    """The chosen rows of a batch, in the order in which they are named."""
    return Batch(
        offsets=batch.offsets[rows],
        items=batch.items[rows],
        types=batch.types[rows],
        weights=batch.weights[rows],
        polarities=batch.polarities[rows],
        targets=batch.targets[rows],
        item_events_before=batch.item_events_before[rows],
        contexts=_contexts(batch.contexts, rows),
        end=batch.end,
    )


def joined(batches: list[Batch]) -> Batch:
    """Several batches as one; there is at least one."""
    contexts = [batch.contexts for batch in batches]
    shifts = np.cumsum([0, *(len(c.excluded) for c in contexts)])
    starts = [c.excluded_starts[:-1] + s for c, s in zip(contexts, shifts, strict=False)]
    together = Contexts(
        **{
            name: np.concatenate([getattr(c, name) for c in contexts])
            for name in Contexts.__slots__
            if name != "excluded_starts"
        },
        excluded_starts=np.append(np.concatenate(starts), shifts[-1]),
    )
    return Batch(
        **{
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in Batch.__slots__
            if name not in ("contexts", "end")
        },
        contexts=together,
        end=batches[-1].end,
    )


def _contexts(contexts: Contexts, rows: Longs) -> Contexts:
    starts = contexts.excluded_starts
    lengths = (starts[1:] - starts[:-1])[rows]
    ends = np.cumsum(lengths)
    # Place e of the part is as far behind the start of its list as it was before.
    places = np.arange(lengths.sum()) + np.repeat(starts[:-1][rows] - (ends - lengths), lengths)
    kept = {
        name: getattr(contexts, name)[rows]
        for name in Contexts.__slots__
        if not name.startswith("excluded")
    }
    return Contexts(
        **kept,
        excluded_starts=np.append(0, ends).astype(np.int64),
        excluded=contexts.excluded[places],
    )
