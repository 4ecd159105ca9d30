"""Nothing that is predicted may depend on what comes after it.

Two leaks that are easily written are kept here, and the checks that the learner
passes must catch both: learning a micro-batch before it is ranked, and taking
from a list what its user gets later in the same micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2

import msgspec
import numpy as np
import pytest

from headwater.config import Config
from headwater.evaluate import Outcomes
from headwater.log import EventsLog, UpdatesLog
from headwater.log.chunks import Entries
from headwater.log.memory import MemoryUpdatesLog
from headwater.loop import Learner
from headwater.model import EXPERTS
from headwater.types import Batch, Entry, Event, Held, Ints, Item, ItemRemoval, Pace, Record
from tests.loop.streams import events_log, learn_all, small, views

BATCH = 50


class LearnsFirst(Learner):
    """Broken: what is predicted has been learned already."""

    def learn(
        self, records: Sequence[Record], *, held: Held | None = None, pace: Pace | None = None
    ) -> None:
        batch, _ = self.fold.batch(records)
        untaught = self.fold.recommender.rank(batch.contexts, self.fold.withheld())
        self.fold.model.count(batch)
        self.stages.trainer.learn(batch, untaught, {"sequence": 1.0, "mixture": 1.0})
        ranking = self.fold.recommender.rank(batch.contexts, self.fold.withheld())
        counts = self.fold.model.popularity.events
        outcomes = self.stages.evaluator.observe(batch, ranking, counts, int(counts.sum()))
        if self.on_outcomes is not None:
            self.on_outcomes(batch, outcomes)
        self._publishing.unpublished.ends.append(batch.end)


class HidesTheRestOfTheBatch(Learner):
    """Broken: a list lacks what its user gets later in the micro-batch."""

    def __init__(
        self, config: Config, events: EventsLog, updates: UpdatesLog, snapshots: None
    ) -> None:
        super().__init__(config, events, updates, snapshots)
        honest = self.fold.batch

        def batch(entries: Entries) -> tuple[Batch, Ints]:
            made, removed = honest(entries)
            _exclude_the_rest(made)
            return made, removed

        self.fold.batch = batch  # type: ignore[method-assign]


def _exclude_the_rest(batch: Batch) -> None:
    contexts = batch.contexts
    excluded = []
    for b in range(len(batch)):
        earlier = contexts.excluded[contexts.excluded_starts[b] : contexts.excluded_starts[b + 1]]
        of_user = contexts.users == contexts.users[b]
        others = batch.items[of_user & (batch.items != batch.items[b])]
        excluded.append(np.union1d(earlier, others).astype(np.int32))
    contexts.excluded = np.concatenate(excluded)
    contexts.excluded_starts = np.cumsum([0, *map(len, excluded)]).astype(np.int64)


Make = Callable[[Config, EventsLog, UpdatesLog, None], Learner]

MODELS = 1 + len(EXPERTS)


def lists_by_offset(make: Make, entries: Sequence[Entry]) -> dict[int, list[list[str]]]:
    """For each target's offset, the ids of the first ten of what every model ranked."""
    config = small(train={"batch_events": BATCH})
    learner = make(config, events_log(entries), MemoryUpdatesLog(), None)
    found: dict[int, list[list[str]]] = {}

    def keep(batch: Batch, outcomes: Outcomes) -> None:
        names = learner.fold.preprocess.items
        for offset, tops in zip(batch.offsets[outcomes.index], outcomes.tops, strict=True):
            assert len(tops) == MODELS
            found[int(offset)] = [[names.id(row) for row in top if row >= 0] for top in tops]

    learner.on_outcomes = keep
    learn_all(learner)
    return found


def leaks(make: Make, entries: list[Entry], offset: int, entry: Entry, own: bool) -> list[int]:
    """Offsets before ``offset`` (``own``: through it) whose lists a change at it has changed."""
    before = lists_by_offset(make, entries)
    changed = [*entries[: offset - 1], entry, *entries[offset:]]
    after = lists_by_offset(make, changed)
    looked_at = [at for at in before if at < offset + own]
    assert len(looked_at) > 2 * BATCH
    return [at for at in looked_at if before[at] != after[at]]


OFFSETS = (161, 168, 177, 186, 195, 199, 200)
"""All in the last micro-batch, from its second event on."""


def stream() -> list[Entry]:
    """Ratings, so that lists lack what was had; each user has several in a micro-batch."""
    return views(200, users=12, items=60, type="rating")


def named(entries: list[Entry]) -> list[Event]:
    return [entry for entry in entries if isinstance(entry, Event)]


def another_item(entries: list[Entry], offset: int) -> Event:
    event = named(entries)[offset - 1]
    had = {other.item_id for other in named(entries) if other.user_id == event.user_id}
    known = sorted({str(other.item_id) for other in named(entries)[:100]} - had)
    return msgspec.structs.replace(event, item_id=known[offset % len(known)])


@pytest.mark.parametrize("offset", OFFSETS)
def test_an_events_item_changes_no_list_made_for_it_or_before_it(offset: int) -> None:
    entries = stream()
    assert leaks(Learner, entries, offset, another_item(entries, offset), own=True) == []


@pytest.mark.parametrize("broken", [LearnsFirst, HidesTheRestOfTheBatch])
def test_that_check_catches_both_leaks(broken: Make) -> None:
    entries = stream()
    caught = {
        offset: leaks(broken, entries, offset, another_item(entries, offset), own=True)
        for offset in OFFSETS
    }
    assert sum(map(bool, caught.values())) >= 3, caught
    assert {at for found in caught.values() for at in found} <= set(range(151, 201))


@pytest.mark.parametrize("offset", OFFSETS[1:])
@pytest.mark.parametrize(
    "kind", ["user", "type", "time", "item made unavailable", "item removed", "new item"]
)
def test_nothing_else_about_an_entry_changes_a_list_before_it(kind: str, offset: int) -> None:
    entries = stream()
    event = named(entries)[offset - 1]
    popular = str(named(entries)[offset - 5].item_id)
    changes: dict[str, Entry] = {
        "user": msgspec.structs.replace(event, user_id="u0"),
        "type": msgspec.structs.replace(event, type="purchase"),
        "time": msgspec.structs.replace(event, timestamp=event.timestamp + 30.0),
        "item made unavailable": Item(popular, available=False),
        "item removed": ItemRemoval(popular),
        "new item": Item("new", title="New"),
    }
    assert leaks(Learner, entries, offset, changes[kind], own=False) == []


def noise(n: int, items: int) -> list[Entry]:
    """Every event is of an item drawn at random: nothing foretells it."""
    random = np.random.default_rng(5)
    return [
        Event(
            event_id=str(k),
            type="view",
            user_id=f"u{random.integers(10)}",
            item_id=f"i{k if k < items else random.integers(items)}",
            timestamp=1_000_000_000.0 + 60.0 * k,
        )
        for k in range(n)
    ]


def mean_ndcg(make: Make, entries: Sequence[Entry], after: int) -> tuple[float, int]:
    learner = make(small(), events_log(entries), MemoryUpdatesLog(), None)
    gains: list[float] = []

    def keep(batch: Batch, outcomes: Outcomes) -> None:
        for offset, rank in zip(
            batch.offsets[outcomes.index], outcomes.ranks[:, 0].tolist(), strict=True
        ):
            if offset > after:
                gains.append(1.0 / log2(rank + 2) if 0 <= rank < 10 else 0.0)

    learner.on_outcomes = keep
    learn_all(learner)
    return float(np.mean(gains)), len(gains)


def test_noise_is_foretold_no_better_than_by_chance() -> None:
    """With N items equally likely, NDCG@10 is sum(1 / log2(r + 2), r < 10) / N on average."""
    items, n = 80, 1_600
    entries = noise(n, items)
    chance = sum(1.0 / log2(rank + 2) for rank in range(10)) / items
    spread = (sum(1.0 / log2(rank + 2) ** 2 for rank in range(10)) / items - chance**2) ** 0.5
    honest, counted = mean_ndcg(Learner, entries, after=n // 2)
    assert counted == n // 2
    assert abs(honest - chance) < 4.0 * spread / counted**0.5
    leaking, _ = mean_ndcg(LearnsFirst, entries, after=n // 2)
    assert leaking > 3.0 * chance
