"""Every expert passes the contract, and the contract catches experts that are broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headwater.config import Config
from headwater.model import Content, Habits, Model, Neighbours, Precedents, Transitions
from headwater.model.associations import Associations
from headwater.recommend import Features, Recommender
from headwater.testing import ExpertContract
from headwater.train import Trainer
from headwater.types import Batch, CatalogueChanges, Contexts, Flags, Ints, State


class Whole:
    """The whole model, learned as the loop learns it."""

    def __init__(self, config: Config) -> None:
        features = Features(config)
        types = np.zeros(1 + len(config.event_types), np.bool_)
        self.model = Model(config, types, features.mixture(config))
        self.recommender = Recommender(config, self.model, features)
        self.trainer = Trainer(config, self.model, len(features))

    def grow(self, n_items: int) -> None:
        self.model.grow(n_items)

    def learn(self, batch: Batch) -> None:
        withheld = ~self.model.popularity.eligible()
        ranking = self.recommender.rank(batch.contexts, withheld)
        self.model.count(batch)
        self.trainer.learn(batch, ranking, {"sequence": 1.0, "mixture": 1.0})

    def state(self) -> State:
        return {**self.model.state(), **{f"t.{k}": v for k, v in self.trainer.state().items()}}

    def load(self, state: State) -> None:
        self.model.load(state)
        self.trainer.load({k[2:]: v for k, v in state.items() if k.startswith("t.")})


class TestPopularity(ExpertContract):
    def create(self, config: Config) -> Whole:
        return Whole(config)

    def learn(self, expert: Whole, batch: Batch, n_items: int) -> None:
        expert.grow(n_items)
        expert.model.popularity.learn(batch)

    def rank(self, expert: Whole, contexts: Contexts, withheld: Flags, k: int) -> Ints:
        return _padded(expert.recommender.rank(contexts, withheld, k).expert_rows["popularity"], k)

    def right(self, user: int, item: int) -> bool:
        return item < 8


class TestTransitions(ExpertContract):
    def create(self, config: Config) -> Associations:
        return Transitions(config.transitions)

    def rank(self, expert: Any, contexts: Contexts, withheld: Flags, k: int) -> Ints:
        rows: Ints = expert.weigh(contexts).best(withheld, k)[0]
        return rows


class TestPrecedents(TestTransitions):
    def create(self, config: Config) -> Any:
        return Precedents(config.precedents)


class TestHabits(TestTransitions):
    def create(self, config: Config) -> Any:
        return Habits(config.preprocess.history_length)


class TestNeighbours(TestTransitions):
    def create(self, config: Config) -> Neighbours:
        return Neighbours(config.neighbours)


class TestContent(TestTransitions):
    def create(self, config: Config) -> Any:
        return Content(config.content)

    def describe(self, expert: Any, changes: CatalogueChanges, n_items: int) -> None:
        expert.grow(n_items)
        expert.describe(changes.described, changes.tokens)

    def learn(self, expert: Any, batch: Batch, n_items: int) -> None:
        expert.grow(n_items)


class TestSequence(ExpertContract):
    def create(self, config: Config) -> Whole:
        return Whole(config)

    def rank(self, expert: Whole, contexts: Contexts, withheld: Flags, k: int) -> Ints:
        sequence = expert.model.sequence
        return sequence.candidates(sequence.encode(contexts), contexts, withheld, k)[0]


class TestMixture(ExpertContract):
    def create(self, config: Config) -> Whole:
        return Whole(config)

    def rank(self, expert: Whole, contexts: Contexts, withheld: Flags, k: int) -> Ints:
        return _padded(expert.recommender.rank(contexts, withheld, k).rows, k)


def _padded(rows: Ints, k: int) -> Ints:
    rows = rows[:, :k]
    return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)


# --- broken on purpose: each must fail the test that stands beside it ----------------------------


class Listing(Transitions):
    """Lists are asked for in one call, for the broken ones below to get in between."""

    def candidates(self, contexts, withheld, k):
        return self.weigh(contexts).best(withheld, k)


class Shuffles(Listing):
    """Gives the ranks of its items away at random."""

    def candidates(self, contexts, withheld, k):
        rows, scores = super().candidates(contexts, withheld, k)
        names = np.random.default_rng(0).permutation(self.n_items)
        return np.where(rows >= 0, names[rows], -1), scores


class IsSilent(Listing):
    """Proposes nothing."""

    def candidates(self, contexts, withheld, k):
        rows, scores = super().candidates(contexts, withheld, k)
        return np.full_like(rows, -1), scores


class ShowsWhatIsWithheld(Listing):
    def candidates(self, contexts, withheld, k):
        return super().candidates(contexts, np.zeros_like(withheld), k)


class ShowsWhatIsExcluded(Listing):
    def candidates(self, contexts, withheld, k):
        return super().candidates(without_exclusions(contexts), withheld, k)


def without_exclusions(contexts: Contexts) -> Contexts:
    copy = Contexts(**{name: getattr(contexts, name) for name in Contexts.__slots__})
    copy.excluded_starts = np.zeros_like(contexts.excluded_starts)
    return copy


class RepeatsItself(Listing):
    def candidates(self, contexts, withheld, k):
        rows, scores = super().candidates(contexts, withheld, k)
        rows[:, 1:] = rows[:, :-1].copy()
        return rows, scores


class LeavesHoles(Listing):
    def candidates(self, contexts, withheld, k):
        rows, scores = super().candidates(contexts, withheld, k)
        rows[:, 0] = -1
        return rows, scores


class AnswersAllAlike(Listing):
    def candidates(self, contexts, withheld, k):
        rows, scores = super().candidates(contexts, withheld, k)
        rows[:] = rows[0]
        return rows, scores


class LearnsFromQuestions(Listing):
    def candidates(self, contexts, withheld, k):
        self._sums += 0.001
        return super().candidates(contexts, withheld, k)


class DependsOnTheHour(Listing):
    started = 0

    def learn(self, batch):
        DependsOnTheHour.started += 1
        self._sums += 0.001 * DependsOnTheHour.started
        super().learn(batch)


class ForgetsItsClock(Listing):
    def load(self, state):
        super().load({**state, "clock": state["clock"] * 0})


class KeepsAllItSees(Listing):
    def __init__(self, settings):
        super().__init__(settings)
        self._seen: list[int] = []

    def learn(self, batch):
        self._seen += batch.items.tolist()
        super().learn(batch)

    def state(self):
        return {**super().state(), "seen": np.array(self._seen)}


class NeedsAHistory(Listing):
    def candidates(self, contexts, withheld, k):
        assert (contexts.history_lengths > 0).all()
        return super().candidates(contexts, withheld, k)


BROKEN: list[tuple[type[Listing], str]] = [
    (Shuffles, "what_is_obvious_is_learned"),
    (IsSilent, "what_is_obvious_is_learned"),
    (ShowsWhatIsWithheld, "a_list_holds_what_may_be_shown_and_nothing_twice"),
    (ShowsWhatIsExcluded, "a_list_holds_what_may_be_shown_and_nothing_twice"),
    (RepeatsItself, "a_list_holds_what_may_be_shown_and_nothing_twice"),
    (LeavesHoles, "a_list_holds_what_may_be_shown_and_nothing_twice"),
    (IsSilent, "a_list_holds_what_may_be_shown_and_nothing_twice"),
    (AnswersAllAlike, "a_list_depends_on_no_other_of_its_call"),
    (LearnsFromQuestions, "ranking_changes_nothing"),
    (DependsOnTheHour, "the_same_batches_give_the_same_state"),
    (ForgetsItsClock, "a_loaded_state_goes_on_as_the_one_that_was_saved"),
    (KeepsAllItSees, "what_is_remembered_does_not_grow_with_traffic"),
    (NeedsAHistory, "nothing_known_is_answered_too"),
]


@pytest.mark.parametrize(("broken", "test"), BROKEN)
def test_a_broken_expert_is_caught(broken: type[Listing], test: str) -> None:
    class Contract(TestTransitions):
        def create(self, config: Config) -> Listing:
            return broken(config.transitions)

        def rank(self, expert: Any, contexts: Contexts, withheld: Flags, k: int) -> Ints:
            rows: Ints = expert.candidates(contexts, withheld, k)[0]
            return rows

    with pytest.raises(AssertionError):
        getattr(Contract(), f"test_{test}")()


def test_every_test_of_the_contract_has_a_broken_expert() -> None:
    tests = {name[5:] for name in dir(ExpertContract) if name.startswith("test_")}
    assert tests == {test for _, test in BROKEN}


def test_popularity_that_is_shuffled_is_below_its_floor() -> None:
    class Contract(TestPopularity):
        def rank(self, expert: Whole, contexts: Contexts, withheld: Flags, k: int) -> Ints:
            rows = super().rank(expert, contexts, withheld, k)
            return np.random.default_rng(0).permutation(len(withheld))[rows].astype(np.int32)

    with pytest.raises(AssertionError, match="of the places are right"):
        Contract().test_what_is_obvious_is_learned()


def test_a_sequence_expert_that_never_learns_is_below_its_floor() -> None:
    class Contract(TestSequence):
        def learn(self, expert: Whole, batch: Batch, n_items: int) -> None:
            expert.grow(n_items)
            expert.model.count(batch)

    with pytest.raises(AssertionError, match="of the places are right"):
        Contract().test_what_is_obvious_is_learned()
