"""What is learned: tables, experts and the mixture; the only code that uses torch.

``Model`` holds them together. Its counting experts are folds of the events, so
both roles fold them; the sequence expert's rows and all dense weights are
learned by the trainer alone and travel as updates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Protocol

import torch
from threadpoolctl import threadpool_limits

from headwater.config import Config
from headwater.model._dense import Step
from headwater.model._encoding import gap_buckets
from headwater.model._opinion import Opinion, Scratch, mark
from headwater.model.content import EVIDENCE, Content
from headwater.model.habits import Habits
from headwater.model.mixture import FirstLists, Mixture
from headwater.model.neighbours import Neighbours
from headwater.model.occasions import LIFTS, Occasions
from headwater.model.popularity import Earlier, Popularity
from headwater.model.precedents import Precedents
from headwater.model.sequence import Examples, SequenceExpert, cosines
from headwater.model.tables import Table
from headwater.model.transitions import Transitions
from headwater.packing import part_of
from headwater.types import Batch, Contexts, Flags, Floats, Ints, State, TableRows

__all__ = [
    "EVIDENCE",
    "EXPERTS",
    "LIFTS",
    "Content",
    "Earlier",
    "Examples",
    "FirstLists",
    "Habits",
    "HistoryExpert",
    "Mixture",
    "Model",
    "Neighbours",
    "Occasions",
    "Opinion",
    "Popularity",
    "Precedents",
    "SequenceExpert",
    "Step",
    "Table",
    "Transitions",
    "cosines",
    "gap_buckets",
    "many_threads",
    "mark",
    "single_threaded",
]

EXPERTS = ("popularity", "transitions", "neighbours", "precedents", "habits", "content", "sequence")
"""Names of the experts, in the order in which they stand everywhere."""


def single_threaded() -> None:
    """Keeps torch, in the calling thread, and numpy's linear algebra on one thread.

    A second one makes small steps slower, up to 100 times under load, and its sums
    depend on the schedule. torch counts its threads per calling thread.
    """
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="blas")


@contextmanager
def many_threads(n: int, seed: int) -> Iterator[None]:
    """Lets torch use n threads, 0 for one a core, in the calling thread until it ends.

    For steps on thousands of examples. torch's own random numbers come from ``seed`` meanwhile.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n or len(os.sched_getaffinity(0)))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


class Stateful(Protocol):
    """A part of the model that is kept in snapshots."""

    def state(self) -> State: ...

    def load(self, state: State) -> None: ...


class HistoryExpert(Stateful, Protocol):
    """An expert that scores items by the items of a history, in units of its own."""

    name: str

    def grow(self, n_items: int) -> None: ...

    def weigh(self, contexts: Contexts) -> Opinion: ...

    def forget(self, rows: Ints) -> None: ...


class Model:
    """The experts and the mixture over them.

    Args:
        config: sizes and rates.
        consuming_types: (types,) whether an event of that type uses its item up.
        mixture: over the experts' features.
    """

    def __init__(self, config: Config, consuming_types: Flags, mixture: Mixture) -> None:
        single_threaded()
        self.popularity = Popularity(config.popularity)
        self.occasions = Occasions()
        self.precedents = Precedents(config.precedents)
        self._associations = (Transitions(config.transitions), Neighbours(config.neighbours))
        self._others = (self.precedents, Habits(config.preprocess.history_length))
        self.counting = (*self._associations, *self._others)
        self.content = Content(config.content)
        self.from_history: dict[str, HistoryExpert] = {
            expert.name: expert for expert in (*self.counting, self.content)
        }
        self.sequence = SequenceExpert(
            config.sequence,
            config.preprocess.history_length,
            consuming_types,
            self.content,
            config.seed,
        )
        self.mixture = mixture
        self.scratch = Scratch()
        self._grown = 0  # rows that there is room for

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        if n_items <= self._grown:
            return
        self._grown = n_items
        if n_items > len(self.scratch.marks):
            self.scratch = Scratch(max(n_items, 2 * len(self.scratch.marks)))
        self.popularity.grow(n_items)
        self.occasions.grow(n_items)
        for expert in self.from_history.values():
            expert.grow(n_items)
        self.sequence.grow(n_items)

    def describe(self, rows: Ints, tokens: Ints) -> None:
        """Takes the tokens of items, see ``Content.describe``."""
        self.content.describe(rows, tokens)
        self.sequence.tower.describe(rows)

    def count(self, batch: Batch) -> None:
        """The counting experts learn a batch: the part of learning that both roles do."""
        self.popularity.learn(batch)
        self.occasions.learn(batch)
        for expert in self.counting:
            expert.learn(batch)

    def count_beside(self, batch: Batch, threads: Executor) -> list[Future[None]]:
        """Likewise, the experts that take longest in other threads.

        Returns:
            What to wait for before anything else is done with the model.
        """
        counting = [threads.submit(expert.learn, batch) for expert in self._associations]
        self.popularity.learn(batch)
        self.occasions.learn(batch)
        for expert in self._others:
            expert.learn(batch)
        return counting

    def forget(self, gone: Ints) -> None:
        """Clears everything learned of items that are removed or expired."""
        self.popularity.forget(gone)
        self.occasions.forget(gone)
        for expert in self.from_history.values():
            expert.forget(gone)
        self.sequence.tower.forget(gone)

    def forget_unused_tokens(self) -> Ints:
        """Clears the tokens that no item has, and returns their rows: others may have them."""
        unused = self.content.forget_unused()
        self.sequence.tower.forget_tokens(unused)
        return unused

    def forget_users(self, gone: Ints) -> None:
        """Takes the names off what was counted of users that are expired."""
        self.precedents.forget_users(gone)

    def changes(
        self,
    ) -> tuple[dict[str, TableRows], dict[str, Ints], dict[str, Floats]]:
        """Rows, tombstones and dense weights that changed since the last call."""
        rows, cleared = self.sequence.tower.take_changes()
        dense = {
            **self.sequence.dense.values(),
            **self.sequence.tower.first_look.values(),
            **self.mixture.dense.values(),
        }
        return rows, cleared, dense

    def put(
        self,
        tables: dict[str, TableRows],
        tombstones: dict[str, Ints],
        dense: dict[str, Floats],
    ) -> None:
        """Takes over what an update carries."""
        self.sequence.tower.first_look.put(dense)
        self.sequence.tower.put(tables, tombstones)
        self.sequence.dense.put(dense)
        self.mixture.dense.put(dense)

    def state(self) -> State:
        return {
            f"{name}.{key}": value
            for name, part in self._parts().items()
            for key, value in part.state().items()
        }

    def load(self, state: State) -> None:
        for name, part in self._parts().items():
            part.load(part_of(state, f"{name}."))
        # Kernels that walk the scratch check no bounds.
        self._grown = 0
        self.grow(self.popularity.n_items)

    def _parts(self) -> dict[str, Stateful]:
        return {
            "popularity": self.popularity,
            "occasions": self.occasions,
            **self.from_history,
            "sequence": self.sequence,
            "mixture": self.mixture,
        }
