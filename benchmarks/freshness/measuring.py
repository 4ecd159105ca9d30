"""Ranks every event by the live model, and by copies of it that are behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.figures import paired
from benchmarks.quality.protocol import LIST_LENGTH, MISS
from benchmarks.quality.streams import Spec, encode
from headwater.config import Config
from headwater.ingest import Interactions
from headwater.loop import Learner
from headwater.model import Model
from headwater.recommend import Recommender
from headwater.replay import replay
from headwater.types import Batch

LIVE = "live"
FROZEN = "frozen at the half"
DAY = "a day"
DAY_SECONDS = 86_400.0

DELAYS: dict[str, Callable[[int, float, bool], int]] = {
    "1,000 events": lambda learned, time, begun: learned // 1_000,
    "10,000 events": lambda learned, time, begun: learned // 10_000,
    DAY: lambda learned, time, begun: int(time // DAY_SECONDS),
    FROZEN: lambda learned, time, begun: int(begun),
}
"""How long updates are withheld -> which update is the newest that is out, by the events that
were learned, stream time in seconds, and whether the second half has begun."""


class Withheld:
    """Serves what was learned up to the last update that is out.

    Everything learned is withheld, counts too. Histories and ids are up to date, as they are
    for whoever asks a model that was made overnight; items that it has not met aren't proposed.

    Args:
        update: one of ``DELAYS``.
        half: events of half the stream; none before is ranked.
    """

    def __init__(self, update: Callable[[int, float, bool], int], half: int) -> None:
        self._update = update
        self._half = half
        self._out: int | None = None
        self._served: Recommender | None = None
        self._learned = 0
        self.ranks: list[NDArray[np.float64]] = []

    def __call__(self, learner: Learner, batch: Batch) -> None:
        """Ranks the targets of a micro-batch that nothing was learned from yet."""
        # By offset: of equal rows of a moment the batch has one.
        begun = int(batch.offsets[-1]) > self._half
        newest = self._update(self._learned, float(batch.contexts.times[0]), begun)
        if self._served is None or newest != self._out:
            self._out, self._served = newest, _copied(learner)
        self._learned = int(batch.offsets[-1])
        if begun:
            self.ranks.append(_ranks(self._served, learner.fold.n_items, batch))


def measure(
    interactions: Interactions, spec: Spec, progress: Callable[[int, str], None]
) -> dict[str, Any]:
    """Figures of the second half, live and for each delay, and what the delay is in events."""
    n = len(interactions)
    targets = encode(interactions, spec).targets()
    half = (len(targets) + 1) // 2
    start = int(targets[half])
    behind = {name: Withheld(update, start) for name, update in DELAYS.items()}

    def beside(learner: Learner, batch: Batch) -> None:
        for served in behind.values():
            served(learner, batch)

    config = Config.model_validate({"recommend": {"repeats": spec.repeats}})
    replayed = replay(
        interactions, [], config, grouped=spec.grouped, progress=progress, beside=beside
    )
    nobody = [""] * len(targets)
    table = replayed.report.ranks_table(targets, nobody, nobody)
    ranks = {LIVE: table["rank"].cast(float).fill_null(MISS).to_numpy()[half:]}
    # The micro-batch in which the second half begins has targets of the first.
    ranks |= {
        name: np.concatenate(one.ranks)[half - len(targets) :] for name, one in behind.items()
    }
    days = float(interactions.timestamps[-1] - interactions.timestamps[start]) / DAY_SECONDS
    events = {
        LIVE: config.train.batch_events,
        "1,000 events": 1_000,
        "10,000 events": 10_000,
        DAY: (n - start) / max(days, 1.0),
        FROZEN: n - start,
    }
    figures = paired(ranks, LIVE)
    return {name: {"events": round(events[name]), **found} for name, found in figures.items()}


def _copied(learner: Learner) -> Recommender:
    """What serves the model as it is now, whatever the learner learns from here on."""
    fold = learner.fold
    features = fold.recommender.features
    types = fold.preprocess.consuming_types
    model = Model(learner.config, types, features.mixture(learner.config))
    model.load(fold.model.state())
    return Recommender(learner.config, model, features)


def _ranks(served: Recommender, n_items: int, batch: Batch) -> NDArray[np.float64]:
    served.model.grow(n_items)
    ranking = served.rank(batch.contexts, ~served.model.popularity.eligible())
    rows = ranking.rows[batch.targets, :LIST_LENGTH]
    found = rows == batch.items[batch.targets][:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1), MISS)
