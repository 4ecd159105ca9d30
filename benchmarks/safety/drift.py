"""A stream whose tastes change at one event, and how long a recommender takes to come back.

From the change on, every item stands for another one: the same events under permuted ids, so
that all that was learned of items is wrong, and the stream is as hard as it was.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.safety.figures import Figure
from headwater import data
from headwater.config import HOUR, Config
from headwater.evaluate import Outcomes, ndcg_gains
from headwater.evaluate._drift import BLOCK
from headwater.ingest import Interactions, read_interactions
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Learner
from headwater.types import Batch, StreamChange

BATCH = 100
RECOVERED = 0.95
"""Share of the NDCG@10 of before the change that has to be reached again."""
WINDOW = 1_000
"""Predictions that such a figure is a mean of."""

CHANGE = 7_000
"""Events before the change."""

DETECTED = ("hit_rate", "loss")
"""What ADWIN and Page-Hinkley tell of."""

Gains = NDArray[np.float64]


def measured(change: int = CHANGE) -> dict[str, Any]:
    """Recovery of ours and of models that are fitted anew every hour; and whether it was told.

    As many events come after the change as before it.
    """
    path = data.path("movietweetings-100k") / "interactions.parquet"
    stream, same = changed(path, change, 2 * change), changed(path, 2 * change, 2 * change)
    told: list[StreamChange] = []
    falsely: list[StreamChange] = []
    # The optimizer raises no learning rate, whatever the losses do.
    unraised = Config.model_validate({"optimize": {"learning_rate_span": 1.0}})
    return {
        "change": change,
        "models": {
            "headwater": recovery(
                ours(stream, told, Config()), ours(same, falsely, Config()), change
            ),
            "headwater, rates never raised": recovery(
                ours(stream, [], unraised), ours(same, [], unraised), change
            ),
            "item kNN, hourly": recovery(hourly(stream, True), hourly(same, True), change),
            "popularity, hourly": recovery(hourly(stream, False), hourly(same, False), change),
        },
        "told": [msgspec.to_builtins(one) for one in told],
        "told_without_a_change": [msgspec.to_builtins(one) for one in falsely],
    }


def figures(found: dict[str, Any]) -> list[Figure]:
    """Ours has to be back, and before any model that is fitted every hour."""
    own, _, *hourly = (one["recovered_after"] for one in found["models"].values())
    back = [at for at in hourly if at]
    peer = min(back, default=None)
    told = sum(change["what"] == "items" for change in found["told"])
    return [
        Figure(
            f"predictions until {RECOVERED:.0%} of NDCG@10 is back after all items changed places",
            *(own, "at most", peer or found["change"], peer, "refitted every hour"),
        ),
        Figure("changes of the mix of items that were told", told, "at least", 1),
        Figure(
            "events until a detector tells that all items have changed places",
            *(_told_after(found), "at most", BLOCK, BLOCK, "the mix of items"),
        ),
        Figure(
            "falls that detectors told of where nothing changed",
            *(sum(one["what"] in DETECTED for one in found["told_without_a_change"]), "at most", 0),
        ),
    ]


def _told_after(found: dict[str, Any]) -> int | None:
    """Events from the change to the first word of a detector."""
    offsets = [one["offset"] for one in found["told"] if one["what"] in DETECTED]
    return min((at - found["change"] for at in offsets if at > found["change"]), default=None)


def sentence(found: dict[str, Any]) -> str:
    own, unraised, *others = found["models"].values()
    back = [one["recovered_after"] for one in others if one["recovered_after"]]
    theirs = f"after {min(back):,}" if back else f"not within {found['change']:,}"
    after, kept = (one["recovered_after"] or 0 for one in (own, unraised))
    return (
        f"After all items have changed places {RECOVERED:.0%} of what NDCG@10 would be is reached "
        f"again after {after:,} predictions ({kept:,} "
        f"where no learning rate is raised), and by models that are fitted every hour {theirs}; "
        f"detectors told of it after {_told_after(found) or 0:,} events."
    )


def table(found: dict[str, Any]) -> Table:
    made = Table(title="NDCG@10 before and after all items change places", title_justify="left")
    headers = ("before", "after", "without a change", "back after", "back to before after")
    made.add_column("model")
    for header in headers:
        made.add_column(header, justify="right")
    for name, one in found["models"].items():
        figures = [f"{one[key]:.4f}" for key in ("before", "after", "unchanged")]
        times = [one[key] for key in ("recovered_after", "recovered_to_before_after")]
        made.add_row(name, *figures, *("never" if at is None else f"{at:,}" for at in times))
    return made


def changed(path: Path, at: int, length: int, seed: int = 0) -> Interactions:
    """The first ``length`` events, the items permuted from event ``at`` on."""
    stream = read_interactions(path, limit=length)
    permuted = np.random.default_rng(seed).permutation(len(stream.item_ids))
    codes = stream.item_codes.copy()
    codes[at:] = permuted[codes[at:]]
    return replace(stream, item_codes=codes)


def ours(stream: Interactions, told: list[StreamChange], config: Config) -> Gains:
    """NDCG@10 of each event, NaN where it was no target; ``told`` gets the changes it noted."""
    log = MemoryEventsLog()
    updates = MemoryUpdatesLog()
    learner = Learner(config, log, updates, None)
    gains = np.full(len(stream), np.nan)

    def observed(batch: Batch, outcomes: Outcomes) -> None:
        gains[batch.offsets[outcomes.index] - 1] = ndcg_gains(outcomes.ranks[:, 0], 10)

    learner.on_outcomes = observed
    learner.on_alert = lambda what, numbers: told.extend(
        [StreamChange(**numbers)] if what == "the stream has changed" else []
    )
    for start in range(0, len(stream), BATCH):
        log.append(stream.events(start, min(start + BATCH, len(stream))), time.time())
        while learner.step():
            learner.publish()
            updates.drop(learner.sequence)
    return gains


def hourly(stream: Interactions, knn: bool) -> Gains:
    """NDCG@10 of a model that is fitted anew to all that was before, at every full hour of stream
    time: counts of items, or item kNN by cosine (Sarwar et al., WWW 2001) with counts behind it.

    Histories are exact, and what a user had isn't recommended to him again. What a refit
    would come to is kept up by adding each hour's events: the same numbers, without the cost.
    """
    users, items = stream.user_codes, stream.item_codes
    hours = (stream.timestamps // HOUR).astype(np.int64)
    n_items = len(stream.item_ids)
    counts = np.zeros(n_items)
    together = np.zeros((n_items, n_items), np.float32) if knn else None
    fitted: dict[int, list[int]] = {}
    histories: dict[int, list[int]] = {}
    gains = np.zeros(len(stream))
    behind = 0
    for k in range(len(stream)):
        while behind < k and hours[behind] < hours[k]:
            user, item = int(users[behind]), int(items[behind])
            counts[item] += 1
            had = fitted.setdefault(user, [])
            if together is not None and item not in had:
                together[had, item] += 1
                together[item, had] += 1
            had.append(item)
            behind += 1
        history = histories.setdefault(int(users[k]), [])
        scores = counts.copy()
        if together is not None and history:
            roots = np.sqrt(np.maximum(counts, 1.0))
            likeness = (together[history] / roots[history][:, None]).sum(axis=0) / roots
            # Below what any likeness says, and in the order of counts.
            scores = np.where(likeness > 0, 1.0 + likeness, counts / (1.0 + counts.max()))
        scores[history] = 0.0
        own = scores[items[k]]
        if own > 0:
            before = int((scores > own).sum()) + (int((scores == own).sum()) - 1) / 2.0
            gains[k] = 1.0 / np.log2(before + 2.0) if before < 10 else 0.0
        history.append(int(items[k]))
    return gains


def recovery(gains: Gains, unchanged: Gains, at: int) -> dict[str, Any]:
    """What a change cost, and when it was over.

    A stream gets harder and easier by itself, so a figure is compared with that of the same
    model, at the same place, on the stream without the change. ``recovered_after`` counts
    predictions from the change to the end of the first ``WINDOW`` of them whose mean is
    ``RECOVERED`` of what it would have been, and of that of before in
    ``recovered_to_before_after``; ``None`` where none is.

    Args:
        gains: (N,) of the events of the changed stream, NaN where there was no prediction.
        unchanged: (N,) likewise of the other.
        at: the change.
    """
    after, other = (found[at:][~np.isnan(found[at:])] for found in (gains, unchanged))
    before = float(np.nanmean(gains[at - 2 * WINDOW : at]))
    means, would_be = _moving(after), _moving(other)
    stretches = range(0, len(after), WINDOW)
    return {
        "before": before,
        "after": float(after.mean()),
        "unchanged": float(other.mean()),
        "stretches": [float(after[k : k + WINDOW].mean()) for k in stretches],
        "recovered_after": _first(means >= RECOVERED * would_be),
        "recovered_to_before_after": _first(means >= RECOVERED * before),
    }


def _moving(gains: Gains) -> Gains:
    sums = np.cumsum(np.concatenate([[0.0], gains]))
    means: Gains = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
    return means


def _first(reached: NDArray[np.bool_]) -> int | None:
    places = np.flatnonzero(reached)
    return int(places[0]) + WINDOW if len(places) else None
