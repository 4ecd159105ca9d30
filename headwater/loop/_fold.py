"""What both roles fold from the events log, in the same order and to the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headwater.config import Config
from headwater.model import Model
from headwater.preprocess import CATEGORY, Preprocessor
from headwater.recommend import Features, Recommender, UserVectors
from headwater.types import (
    NO_ROW,
    Batch,
    Flags,
    Ints,
    ItemRemoval,
    Record,
    State,
)


class Fold:
    """What both roles remember of the events: ids, histories, catalogue, counts.

    Args:
        grouped: see ``Preprocessor``.
        vectors: see ``Recommender``.
    """

    def __init__(
        self, config: Config, *, grouped: bool = False, vectors: UserVectors | None = None
    ) -> None:
        self.config = config
        self.preprocess = Preprocessor(config, grouped=grouped)
        features = Features(config)
        self.n_features = len(features)
        self.model = Model(config, self.preprocess.consuming_types, features.mixture(config))
        self.recommender = Recommender(config, self.model, features, vectors)
        self.offset = 0
        self._is_category = np.zeros(0, np.bool_)

    @property
    def n_items(self) -> int:
        return len(self.preprocess.items)

    def eligible(self) -> Flags:
        """(N,) items that may be recommended: named by an event, or listed where that is enough."""
        eligible = self.model.popularity.eligible()
        if self.config.recommend.catalogue == "all":
            eligible = eligible | self.preprocess.catalogue.listed(self.n_items)
        return eligible & ~self.preprocess.catalogue.withheld(self.n_items)

    def withheld(self) -> Flags:
        """(N,) items that may not be recommended to anyone."""
        return ~self.eligible()

    @property
    def shape(self) -> dict[str, str | int | float | bool]:
        """What a snapshot must have been made with to be loaded."""
        sequence = self.config.sequence
        return {
            "sequence.dim": sequence.dim,
            "sequence.layers": sequence.layers,
            "sequence.heads": sequence.heads,
            "preprocess.history_length": self.config.preprocess.history_length,
            "preprocess.cleaning.remembered": self.config.preprocess.cleaning.remembered,
            "transitions.width": self.config.transitions.width,
            "neighbours.width": self.config.neighbours.width,
            "content.tokens": self.config.content.tokens,
            "content.postings": self.config.content.postings,
            "popularity.half_lives": len(self.config.popularity.half_lives_hours),
            "mixture.hidden": self.config.mixture.hidden,
            "mixture.members": self.config.mixture.members,
            "mixture.features": self.n_features,
            "event_types": len(self.preprocess.type_names),
        }

    def categories(self, rows: Ints) -> Ints:
        """(..., T) the categories of items among their tokens, ``NO_ROW`` past the end."""
        known = self.preprocess.tokens
        new = range(len(self._is_category), len(known))
        if new:
            flags = [known.id(token).startswith(CATEGORY) for token in new]
            self._is_category = np.append(self._is_category, np.array(flags))
        found = self.model.content.tokens(rows)
        # Categories come first among an item's tokens, so that none is left behind another.
        # The flag behind the last one is that of NO_ROW.
        wanted = np.append(self._is_category, False)[found]
        return np.where(wanted, found, NO_ROW).astype(np.int32)

    def batch(self, records: Sequence[Record]) -> tuple[Batch, Ints]:
        """Folds records into histories and catalogue; returns the batch, and removed item rows."""
        batch, changes = self.preprocess.batch(records)
        self.model.grow(self.n_items)
        self.model.content.describe(changes.described, changes.tokens)
        self.offset = batch.end
        return batch, changes.removed

    def state(self) -> State:
        return {
            **{f"preprocess.{name}": value for name, value in self.preprocess.state().items()},
            **{f"model.{name}": value for name, value in self.model.state().items()},
        }

    def load(self, state: State, offset: int) -> None:
        self.preprocess.load(part_of(state, "preprocess."))
        self.model.load(part_of(state, "model."))
        self.model.grow(self.n_items)
        self.offset = offset
        self._is_category = np.zeros(0, np.bool_)


def until_removal(records: list[Record]) -> list[Record]:
    """Cut after the first removal: what is forgotten must not depend on where batches end."""
    for k, record in enumerate(records):
        if isinstance(record.entry, ItemRemoval):
            return records[: k + 1]
    return records


def part_of(state: State, prefix: str) -> State:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
