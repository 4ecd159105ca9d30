"""The contract of an expert: a bounded, repeatable fold of the events that ranks items well."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from headwater.config import Config, Mixture, Precedents, Preprocess, Sequence
from headwater.deploy import state_digest
from headwater.preprocess import Preprocessor
from headwater.types import (
    NO_ROW,
    Batch,
    CatalogueChanges,
    Contexts,
    Event,
    Flags,
    Ints,
    Item,
    Record,
    State,
)

_USERS, _ITEMS, _HOT = 20, 40, 8
_BATCH = 50


def checkerboard(n: int, seed: int = 0) -> list[Event]:
    """A stream whose right answers are obvious, a view a minute.

    User ``u3`` views odd items and ``u4`` even ones, like every user by its number.
    Seven in ten views are of one of the eight hot items, ``i0`` to ``i7``.
    """
    random = np.random.default_rng(seed)
    events = []
    for k in range(n):
        user = int(random.integers(_USERS))
        pairs = (_HOT if random.random() < 0.7 else _ITEMS) // 2
        item = 2 * int(random.integers(pairs)) + user % 2
        time = 1e9 + 60.0 * k
        events.append(Event(f"e{k}", "view", f"u{user}", time, f"i{item}"))
    return events


def checkerboard_items() -> list[Item]:
    """The items of the checkerboard: what is odd or even about them is their category."""
    return [
        Item(f"i{n}", categories=("odd" if n % 2 else "even",), tags=(f"number {n}",))
        for n in range(_ITEMS)
    ]


class ExpertContract(ABC):
    """What the mixture, the snapshots and the replay rely on in every expert.

    A subclass says how its expert is made and how it ranks:

        class TestTransitions(ExpertContract):
            def create(self, config: Config) -> Transitions:
                return Transitions(config.transitions)

            def rank(self, expert, contexts, withheld, k):
                return expert.weigh(contexts).best(withheld, k)[0]
    """

    floor = 0.9
    """Share of the first five places that must be right on the checkerboard."""

    @abstractmethod
    def create(self, config: Config) -> Any:
        """An expert that has learned nothing."""

    @abstractmethod
    def rank(self, expert: Any, contexts: Contexts, withheld: Flags, k: int) -> Ints:
        """(B, k) the expert's own lists, best first, ``NO_ROW`` past the end of one."""

    def learn(self, expert: Any, batch: Batch, n_items: int) -> None:
        """Learns a batch in which item rows up to ``n_items`` are named."""
        expert.grow(n_items)
        expert.learn(batch)

    def describe(self, expert: Any, changes: CatalogueChanges, n_items: int) -> None:
        """Takes what the catalogue says of items, where the expert looks at it."""
        return  # most don't

    def state(self, expert: Any) -> State:
        """Everything that the next step depends on."""
        state: State = expert.state()
        return state

    def load(self, expert: Any, state: State) -> None:
        """Takes over a state."""
        expert.load(state)

    def right(self, user: int, item: int) -> bool:
        """Whether an item is a right answer to a user of the checkerboard."""
        return user % 2 == item % 2

    def test_what_is_obvious_is_learned(self) -> None:
        course = _Course(self, 1500)
        expert = course.taught(1300)
        right, places = 0, 0
        for batch, nothing_withheld in course.rest(1300):
            rows = self.rank(expert, batch.contexts, nothing_withheld, 5)
            for user, listed in zip(batch.contexts.users, rows, strict=True):
                places += 5
                right += sum(
                    self.right(course.user(user), course.item(row))
                    for row in listed[:5]
                    if row >= 0
                )
        assert right >= self.floor * places, f"{right / places:.3f} of the places are right"

    def test_a_list_holds_what_may_be_shown_and_nothing_twice(self) -> None:
        course = _Course(self, 600)
        expert = course.taught(550)
        contexts = course.contexts(550)
        contexts.excluded = np.tile(np.array([3, 9, 9], np.int32), len(contexts))
        contexts.excluded_starts = 3 * np.arange(len(contexts) + 1)
        withheld = np.zeros(course.n_items, np.bool_)
        withheld[[2, 5]] = True
        rows = self.rank(expert, contexts, withheld, 60)
        assert rows.shape == (len(contexts), 60)
        for listed in rows.tolist():
            shown = [row for row in listed if row != NO_ROW]
            assert listed == shown + [NO_ROW] * (60 - len(shown)), "nothing stands behind the end"
            assert len(shown) == len(set(shown))
            assert not {2, 3, 5, 9} & set(shown)
            assert set(shown) <= set(range(course.n_items))
        assert (rows[:, 0] != NO_ROW).any()

    def test_a_list_depends_on_no_other_of_its_call(self) -> None:
        course = _Course(self, 600)
        expert = course.taught(550)
        nothing = np.zeros(course.n_items, np.bool_)
        together = self.rank(expert, course.contexts(550), nothing, 5)
        for b, listed in enumerate(together.tolist()):
            alone = course.contexts(550, b)
            assert self.rank(expert, alone, nothing, 5).tolist() == [listed]

    def test_ranking_changes_nothing(self) -> None:
        course = _Course(self, 600)
        expert = course.taught(550)
        before = state_digest(self.state(expert))
        self.rank(expert, course.contexts(550), np.zeros(course.n_items, np.bool_), 5)
        assert state_digest(self.state(expert)) == before

    def test_the_same_batches_give_the_same_state(self) -> None:
        digests = {state_digest(self.state(_Course(self, 600).taught(600))) for _ in range(2)}
        assert len(digests) == 1

    def test_a_loaded_state_goes_on_as_the_one_that_was_saved(self) -> None:
        course = _Course(self, 600)
        saved, loaded = course.taught(300), self.create(course.config)
        self.load(loaded, {name: value.copy() for name, value in self.state(saved).items()})
        assert state_digest(self.state(loaded)) == state_digest(self.state(saved))
        for batch, _ in course.rest(300):
            self.learn(saved, batch, course.n_items)
            self.learn(loaded, batch, course.n_items)
        assert state_digest(self.state(loaded)) == state_digest(self.state(saved))

    def test_what_is_remembered_does_not_grow_with_traffic(self) -> None:
        course = _Course(self, 1800)
        sizes = [
            sum(value.nbytes for value in self.state(course.taught(events)).values())
            for events in (900, 1800)
        ]
        assert sizes[0] == sizes[1]

    def test_nothing_known_is_answered_too(self) -> None:
        course = _Course(self, 600)
        nobody = course.contexts(0)
        assert not nobody.history_lengths[0]
        fresh = self.create(course.config)
        self.learn(fresh, course.batches[0], course.n_items)
        assert self.rank(fresh, nobody, np.zeros(course.n_items, np.bool_), 5).shape[1] == 5
        everything = np.ones(course.n_items, np.bool_)
        assert (self.rank(course.taught(550), nobody, everything, 5) == NO_ROW).all()


class _Course:
    """The checkerboard as batches, for the experts of one contract."""

    def __init__(self, contract: ExpertContract, events: int) -> None:
        self.config = Config(
            preprocess=Preprocess(history_length=10),
            precedents=Precedents(events=500),
            sequence=Sequence(dim=16, layers=1, negatives=64, replay_buffer=500),
            mixture=Mixture(candidates=20, hidden=8, replay_buffer=200),
        )
        self._contract = contract
        preprocessor = Preprocessor(self.config)
        items = [Record(n, 2e9, 1e9, item) for n, item in enumerate(checkerboard_items(), start=1)]
        _, self._catalogue = preprocessor.batch(items)
        records = [
            Record(offset, 2e9, event.timestamp, event)
            for offset, event in enumerate(checkerboard(events), start=len(items) + 1)
        ]
        self.batches = [
            preprocessor.batch(records[start : start + _BATCH])[0]
            for start in range(0, events, _BATCH)
        ]
        self._users, self._items = list(preprocessor.users), list(preprocessor.items)
        self.n_items = len(self._items)

    def user(self, row: int) -> int:
        return int(self._users[row][1:])

    def item(self, row: int) -> int:
        return int(self._items[row][1:])

    def taught(self, events: int) -> Any:
        """A new expert that has learned the first so many events."""
        expert = self._contract.create(self.config)
        self._contract.describe(expert, self._catalogue, self.n_items)
        for batch in self.batches[: events // _BATCH]:
            self._contract.learn(expert, batch, self.n_items)
        return expert

    def rest(self, events: int) -> Iterator[tuple[Batch, Flags]]:
        """The batches behind the first so many events, and that nothing is withheld."""
        for batch in self.batches[events // _BATCH :]:
            yield batch, np.zeros(self.n_items, np.bool_)

    def contexts(self, events: int, b: int | None = None) -> Contexts:
        """Those of the batch behind the first so many events: all of them, or one."""
        found = self.batches[events // _BATCH].contexts
        chosen = slice(None) if b is None else slice(b, b + 1)
        n = len(found.users[chosen])
        return Contexts(
            users=found.users[chosen],
            times=found.times[chosen],
            history_items=found.history_items[chosen],
            history_types=found.history_types[chosen],
            history_times=found.history_times[chosen],
            history_cleaned=found.history_cleaned[chosen],
            history_lengths=found.history_lengths[chosen],
            session_lengths=found.session_lengths[chosen],
            excluded_starts=np.zeros(n + 1, np.int64),
            excluded=np.zeros(0, np.int32),
        )
