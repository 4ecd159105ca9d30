"""What both roles fold from the events log, in the same order and to the same bits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from headwater.config import Config
from headwater.deploy import Shape
from headwater.log.chunks import Chunk, Entries, Read, bounds, chunk, others, through
from headwater.model import Model
from headwater.packing import part_of
from headwater.preprocess import CATEGORY, Named, Preprocessor
from headwater.recommend import Features, Recommender, UserVectors
from headwater.types import (
    NO_ROW,
    Batch,
    CatalogueChanges,
    Event,
    Flags,
    Gone,
    Ints,
    ItemRemoval,
    Record,
    Rollback,
    State,
)

LAYOUT = 11
"""What the arrays and the shape of a snapshot are; those of another layout can't be read."""

_APART = 64
"""Arrays of rows in doubt that are kept before they are made one."""

NOTHING = np.zeros(0, np.int32)

_trim_memory: Callable[[int], object] = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
"""glibc keeps what arrays leave behind when they grow: of 100,000 users and 80,000 items, a sixth
of what they take. One or two milliseconds each time; other libraries have nothing like it."""


def shape(config: Config) -> Shape:
    """What a snapshot must have been made with to be loaded."""
    sequence = config.sequence
    return {
        "sequence.dim": sequence.dim,
        "sequence.layers": sequence.layers,
        "sequence.heads": sequence.heads,
        "state.layout": LAYOUT,
        "preprocess.history_length": config.preprocess.history_length,
        "preprocess.cleaning.remembered": config.preprocess.cleaning.remembered,
        "transitions.width": config.transitions.width,
        "transitions.half_life_days": config.transitions.half_life_days,
        "neighbours.width": config.neighbours.width,
        "neighbours.half_life_days": config.neighbours.half_life_days,
        "content.tokens": config.content.tokens,
        "content.postings": config.content.postings,
        # Decayed counts are in units of their half-life: under another one they mean nothing.
        "popularity.half_lives_hours": str(list(config.popularity.half_lives_hours)),
        "mixture.hidden": config.mixture.hidden,
        "mixture.members": config.mixture.members,
        "mixture.features": len(Features(config)),
        "event_types": 1 + len(config.event_types),
    }


class Prepared(NamedTuple):
    """A batch that the model knows nothing of yet.

    Args:
        n_items: rows that there were behind it.
    """

    batch: Batch
    changes: CatalogueChanges
    n_items: int


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
        self.rolled_back = 0
        self._passed_over = np.zeros((0, 2), np.int64)
        self._is_category = np.zeros(0, np.bool_)
        self._withheld = np.zeros(0, np.bool_)
        self._withheld_of = 0  # rows that are up to date, but for those that are in doubt
        self._in_doubt: list[Ints] = []
        self._doubted = np.zeros(0, np.bool_)  # those that are in it
        self._put = NOTHING  # what the newest batch puts or removes

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
        """(N,) items that may not be recommended to anyone.

        Only what batches have touched since the last call is looked at; it must have been counted.
        """
        return self.withheld_now().copy()

    def withheld_now(self) -> Flags:
        """The same, not to be written to, and good until the next batch."""
        n = self.n_items
        if n == self._withheld_of and not self._in_doubt:
            return self._withheld[:n]
        if n > len(self._withheld):
            grown = np.ones(max(n, 2 * len(self._withheld)), np.bool_)
            grown[: len(self._withheld)] = self._withheld
            self._withheld = grown
        fresh = np.arange(self._withheld_of, n, dtype=np.int32)
        rows = np.unique(np.concatenate([fresh, *self._in_doubt]))
        known = self.preprocess.catalogue
        eligible = self.model.popularity.events[rows] > 0
        if self.config.recommend.catalogue == "all":
            eligible |= known.lists(rows)
        self._withheld[rows] = ~eligible | known.holds_back(rows)
        self._doubted[rows[rows < len(self._doubted)]] = False
        self._withheld_of, self._in_doubt = n, []
        return self._withheld[:n]

    @property
    def shape(self) -> Shape:
        return shape(self.config)

    def categories(self, rows: Ints) -> Ints:
        """(..., T) the categories of items among their tokens, ``NO_ROW`` past the end."""
        found = self.model.content.tokens(rows)
        # Categories come first among an item's tokens, so that none is left behind another.
        # The flag behind the last one is that of NO_ROW.
        wanted = np.append(self._is_category, False)[found]
        return np.where(wanted, found, NO_ROW).astype(np.int32)

    def pass_over(self, rollbacks: Sequence[Record]) -> None:
        """From now on what the rollbacks set aside is passed over, wherever it stands.

        ``rolled_back`` is the offset of the newest rollback that this state knows of.
        """
        for record in rollbacks:
            if isinstance(entry := record.entry, Rollback):
                ranges = np.append(self._passed_over, [[entry.first, entry.through]], axis=0)
                self._passed_over = ranges
                self.rolled_back = record.offset

    def admitted(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records without the events that a rollback has set aside."""
        if not records or not self._may_be_set_aside(records[0].offset):
            return records
        return [
            record
            for record in records
            if not isinstance(record.entry, Event) or not self.is_set_aside(record.offset)
        ]

    def batch(self, entries: Entries) -> tuple[Batch, Ints]:
        """Folds entries into histories and catalogue; returns the batch, and removed item rows.

        The batch holds the admitted ones, and ends where all of them end.
        """
        return self.enter(self.prepare(entries))

    def prepare(self, entries: Entries) -> Prepared:
        """The part of ``batch`` that doesn't touch the model."""
        return self.arrange(*self.name(entries))

    def name(self, entries: Entries) -> tuple[Named, int]:
        """The half of ``prepare`` that looks at ids, and the offset at which the entries end."""
        read = chunk(entries)
        return self.preprocess.name(self._admitted(read)), int(read.offsets[-1])

    def arrange(self, named: Named, end: int) -> Prepared:
        """The other half, once what was named before is arranged."""
        batch, changes = self.preprocess.arrange(named)
        batch.end = end
        return Prepared(batch, changes, named.n_items)

    def enter(self, prepared: Prepared) -> tuple[Batch, Ints]:
        """The rest of it, once what was entered before is counted."""
        batch, changes, n_items = prepared
        self.model.grow(n_items)
        if len(changes.described):
            self.model.describe(changes.described, changes.tokens)
            self._mark_categories(np.unique(changes.tokens[changes.tokens != NO_ROW]))
        self.offset = batch.end
        named = batch.items[batch.items != NO_ROW]
        self._put = np.concatenate([changes.described, changes.removed])
        self._doubt(named, changes.described, changes.removed)
        return batch, changes.removed

    def sweeps_behind(self, entries: Entries) -> bool:
        """Whether ``forget`` sweeps once these are folded."""
        return self.preprocess.sweeps_behind(entries)

    def count(self, batch: Batch, withheld: Flags) -> Flags:
        """Counts a portion of the newest batch, in order.

        Returns ``withheld`` (N,) without what the portion is the first to name. What the batch
        puts or removes stays in it until the next batch: an event before that must not know.
        """
        self.model.count(batch)
        named = batch.items[batch.items != NO_ROW]
        named = np.setdiff1d(named[withheld[named]], self._put)
        shown = named[self.model.popularity.events[named] > 0]
        shown = shown[~self.preprocess.catalogue.holds_back(shown)]
        if not len(shown):
            return withheld
        withheld = withheld.copy()
        withheld[shown] = False
        return withheld

    def forget(self, entries: Entries, removed: Ints) -> Gone:
        """Ends a batch once it is learned: what was removed goes, and at a sweep what expired.

        Args:
            entries: the batch.
            removed: item rows that ``batch`` gave.
        """
        swept = self.preprocess.sweep(entries)
        gone = Gone(removed, NOTHING) if swept is None else swept
        gone.items = np.union1d(gone.items, removed)
        if len(gone.items):
            self.model.forget(gone.items)
            self._doubt(gone.items)
        if swept is not None:
            self.model.forget_users(gone.users)
            gone.tokens = self.model.forget_unused_tokens()
            self.preprocess.tokens.release(gone.tokens)
            _trim_memory(0)
        return gone

    def erase(self, user_id: str) -> Gone:
        """Lets go of a user, of whom no event may tell any more."""
        gone = self.preprocess.erase(user_id)
        self.model.forget_users(gone.users)
        return gone

    def state(self) -> State:
        return {
            **{f"preprocess.{name}": value for name, value in self.preprocess.state().items()},
            **{f"model.{name}": value for name, value in self.model.state().items()},
            "rollbacks.passed_over": self._passed_over,
            "rollbacks.through": np.array(self.rolled_back, np.int64),
        }

    def load(self, state: State, offset: int) -> None:
        self.preprocess.load(part_of(state, "preprocess."))
        self.model.load(part_of(state, "model."))
        self.model.grow(self.n_items)
        self.offset = offset
        self._passed_over = state["rollbacks.passed_over"].copy()
        self.rolled_back = int(state["rollbacks.through"])
        self._withheld_of, self._in_doubt = 0, []
        self._doubted = np.zeros(0, np.bool_)
        self._is_category = np.zeros(0, np.bool_)
        self._mark_categories(np.arange(len(self.preprocess.tokens), dtype=np.int32))

    def until_cut(self, entries: Read) -> Read:
        """Those through the first removal or sweep: what is forgotten there must not depend on
        where batches end.
        """
        if not len(entries):
            return entries
        first, last, _ = bounds(entries)
        sweep = first + -first % self.config.preprocess.sweep_events
        removals = (r.offset for r in others(entries) if isinstance(r.entry, ItemRemoval))
        cut = min(sweep, next(removals, sweep))
        return entries if last <= cut else through(entries, cut)

    def is_set_aside(self, offset: int) -> bool:
        """Whether a rollback that this state knows of passes over what stands there."""
        first, through = self._passed_over.T
        return bool(((first <= offset) & (offset <= through)).any())

    def _may_be_set_aside(self, first: int) -> bool:
        """Whether anything from the offset ``first`` on may be."""
        return bool(len(self._passed_over)) and first <= int(self._passed_over[:, 1].max())

    def _admitted(self, read: Chunk) -> Chunk:
        """Likewise by the column."""
        if not self._may_be_set_aside(int(read.offsets[0])):
            return read
        offsets = read.offsets[read.places][:, None]
        first, through = self._passed_over.T
        aside = ((first <= offsets) & (offsets <= through)).any(axis=1)
        kept = np.ones(len(read), np.bool_)
        kept[read.places[aside]] = False
        return read.only(kept)

    def _doubt(self, *rows: Ints) -> None:
        """Whether these may be recommended may have changed."""
        if self.n_items > len(self._doubted):
            grown = np.zeros(2 * self.n_items, np.bool_)
            grown[: len(self._doubted)] = self._doubted
            self._doubted = grown
        for some in rows:
            new = some[~self._doubted[some]]
            if len(new):
                self._doubted[new] = True
                self._in_doubt.append(np.unique(new))
        if len(self._in_doubt) > _APART:  # nobody may ask for long
            self._in_doubt = [np.concatenate(self._in_doubt)]

    def _mark_categories(self, tokens: Ints) -> None:
        """Notes which of the tokens are categories; a row may have been another token's."""
        size = int(tokens.max(initial=NO_ROW)) + 1
        if size > len(self._is_category):
            self._is_category = np.pad(self._is_category, (0, size - len(self._is_category)))
        known = self.preprocess.tokens
        self._is_category[tokens] = [known.id(row).startswith(CATEGORY) for row in tokens.tolist()]
