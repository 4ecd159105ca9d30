"""Within a micro-batch, what comes first is counted before what comes later is ranked."""

from __future__ import annotations

import numpy as np

from headwater.evaluate import Outcomes
from headwater.log.memory import MemoryUpdatesLog
from headwater.loop import Learner
from headwater.loop._stages import _PORTION
from headwater.model import EXPERTS
from headwater.types import Batch, Entry, Event, Item
from tests.loop.streams import events_log, learn_all, small, views

COUNTING = [1 + EXPERTS.index(name) for name in EXPERTS if name != "sequence"]


def tops(entries, batch_events: int, *, grouped: bool = False) -> dict[int, np.ndarray]:
    """Offset of each target -> (models, 10) ids of what was ranked first."""
    log = events_log(entries)
    config = small(train={"batch_events": batch_events})
    learner = Learner(config, log, MemoryUpdatesLog(), None, grouped=grouped)
    found: dict[int, np.ndarray] = {}

    def keep(batch: Batch, outcomes: Outcomes) -> None:
        items = learner.fold.preprocess.items
        names = np.array([*map(items.id, range(len(items))), "-"], object)
        for offset, rows in zip(batch.offsets[outcomes.index], outcomes.tops, strict=True):
            found[int(offset)] = names[rows]

    learner.on_outcomes = keep
    learn_all(learner)
    return found


def test_the_counting_experts_propose_what_they_would_in_micro_batches_of_a_portion() -> None:
    entries = views(200, users=12, items=60)
    whole, cut = tops(entries, 5 * _PORTION), tops(entries, _PORTION)
    assert whole.keys() == cut.keys()
    for offset, ranked in whole.items():
        assert (ranked[COUNTING] == cut[offset][COUNTING]).all(), offset


def named(offset: int, item: str, time: float) -> Event:
    return Event(
        event_id=f"e{offset}",
        type="view",
        user_id=f"u{offset % 3}",
        item_id=item,
        timestamp=time,
    )


def test_an_item_that_an_event_was_the_first_to_name_is_proposed_in_the_same_micro_batch() -> None:
    entries = [named(k, "new" if k == 25 else f"i{k % 5}", 1e9 + k) for k in range(60)]
    found = tops(entries, 60)
    popular = EXPERTS.index("popularity") + 1
    seen = [offset for offset, ranked in found.items() if "new" in ranked[popular]]
    assert seen == list(range(3 * _PORTION + 1, 61))


def test_an_item_that_the_micro_batch_holds_back_is_not() -> None:
    entries: list[Entry] = [named(k, "new" if k == 25 else f"i{k % 5}", 1e9 + k) for k in range(60)]
    entries.insert(26, Item("new", available=False))
    assert not any("new" in ranked for ranked in tops(entries, 61).values())


def test_what_is_simultaneous_sees_nothing_of_itself() -> None:
    entries = [named(k, f"i{k}", 1e9 + k // 25) for k in range(100)]
    found = tops(entries, 100, grouped=True)
    for offset, ranked in found.items():
        moment = (offset - 1) // 25
        later = {f"i{k}" for k in range(25 * moment, 100)}
        assert not later & set(ranked.ravel()), offset
    assert {f"i{k}" for k in range(50, 75)} & set(found[76].ravel()), "earlier ones are counted"
