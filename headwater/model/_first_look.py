"""What is worth scoring: the first look at items, where there are too many to score each one.

A sketch of a few bytes an item (``headwater.model._sketch``) is looked at, or, until the first one
is made, all columns in bytes (``headwater.model._scan``). Where users' vectors have turned away
from a sketch's directions, the next one is made beside it. What is found is scored by the vectors
as they are (docs/decisions/0031-along-the-directions-that-users-fill.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headwater.model._directions import Directions
from headwater.model._scan import Scan
from headwater.model._sketch import Sketch, have_room, sizes, units_of
from headwater.packing import part_of
from headwater.types import Contexts, Flags, Floats, Ints, State

_SWEPT = 12_288
"""Items whose bytes follow a step that changed tokens: 1.7 ms, a tenth of the step."""

_STEPS = 2
"""Steps that an update stands for: it is published at most ten times a second."""

_TURNS = 8
"""Updates after which all items of a small catalogue had their turn: at twenty updates a second
what is more often than that would be most of what taking them over takes."""

_AT_ONCE = 1_024
"""Vectors that are added up before their bytes are taken: they are still in the cache then."""

_EVERY = 16
"""Steps of a trainer after which it asks whether the directions still hold."""

_FEWER = 8
"""Directions that are worth another sketch: a model that has learned little needs more of them."""

_SAMPLE = 2_048
"""Items by which the units of a sketch are chosen. Others may have larger values: they are as large
as can be then, and still found (of items ten times as long as all of the sample 99 %)."""


class FirstLook:
    """The bytes of every item, from ``exact_items`` on.

    Those of an item follow each change of its own row at once. Where tokens change, and with them
    nearly every item a little, those of the next few thousand follow, so that a step costs no more
    because the catalogue grew.

    Args:
        name: prefixes what is published.
        dim: D; a vector has D + 1 values.
        exact_items: up to so many, nothing is kept.
        vectors_of: (R, D + 1) of given rows.
    """

    def __init__(
        self, name: str, dim: int, exact_items: int, vectors_of: Callable[[Ints], Floats]
    ) -> None:
        self._exact_items = exact_items
        self.scan = Scan(dim)
        self.sketch: Sketch | None = None
        self.directions = Directions(dim)
        self._next: Sketch | None = None  # the one that is being made
        self._names = (f"{name}.directions", f"{name}.units")
        self._sizes = sizes(dim)
        self._vectors_of = vectors_of
        self._swept = np.zeros(1, np.int64)  # the first row whose turn it is
        self._due = 0  # rows whose turn it is since the newest update
        self._left = 0  # those that had none since an update changed tokens

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``, and looks at the new ones."""
        known = self.scan.n_items
        # Whoever has bytes goes on with them, though by other settings all items may be scored now.
        if n_items > known and (known or n_items > self._exact_items):
            self.scan.grow(n_items)
            for sketch in self._sketches():
                sketch.grow(n_items)
            self.look_at(np.arange(known, n_items, dtype=np.int32))

    def look_at(self, rows: Ints) -> None:
        """Their bytes are those of their vectors now."""
        if self.scan.n_items:
            self._put(rows, self._all())

    def best(self, users: Floats, contexts: Contexts, withheld: Flags, n: int) -> Ints:
        """(B, n) the rows that seem best for each user, in any order; ``NO_ROW`` for none.

        Args:
            users: (B, D + 1); the last column is 1, for the bias.
            contexts: B of them, for what is excluded.
            withheld: (N,) rows that nobody may be shown.
        """
        return (self.sketch or self.scan).best(users, contexts, withheld, n)

    def near(self, item: int, there: Flags, n: int) -> Ints:
        """The n rows that seem nearest to an item's by the angle, in any order, or all above 0.

        Args:
            item: row.
            there: (N,) rows that may be among them.
        """
        return self.scan.near(item, there, n)

    def follow_step(self, users: Floats, *, tokens: bool) -> None:
        """What a trainer's step leaves to do.

        Args:
            users: (B, D) that it learned from.
            tokens: whether it changed some.
        """
        if not self.scan.n_items:
            return
        self.directions.see(users)
        if self._next is None and self.directions.steps % _EVERY == 0:
            self._turn()
        if tokens or self._next:
            # A trainer has no use for all columns once there are fewer to look at.
            self._sweep(_SWEPT, [*self._sketches()] if self.sketch else self._all())

    def follow_update(self, *, tokens: bool) -> None:
        """An update was taken over: what is left to do is for ``look_on``, or for the next one.

        Args:
            tokens: whether it changed some.
        """
        if tokens:
            self._due, self._left = self._turns(), self.scan.n_items

    def rest(self) -> bool:
        """No update will come soon: it is the turn of all that had none; whether there are any."""
        self._due = self._left
        return self._left > 0

    def look_on(self, n: int | None = None) -> bool:
        """Looks at n of the items whose turn it is, or at as many as an update waits for; whether
        there are more.

        Where a sketch is being made, all items have their turn, and no update waits for them. It
        takes 200 ns an item, and whoever has to answer needn't wait for it.
        """
        if n is None:
            n = min(self._due, self._turns())
        elif not self._next:
            n = min(n, self._due)
        self._sweep(n, self._all())
        self._due = max(self._due - n, 0)
        return self._due > 0 or self._next is not None

    def look_again(self) -> None:
        """All bytes are those of the vectors now: 200 ns an item.

        For who only answers; a trainer has to find what it found before it was restarted.
        """
        self._put_in_turn(np.arange(self.scan.n_items, dtype=np.int32), self._all())

    def values(self) -> dict[str, Floats]:
        """What followers make their sketches by, by name."""
        newest = self._next or self.sketch
        return dict(zip(self._names, (newest.basis, newest.units), strict=True)) if newest else {}

    def put(self, values: dict[str, Floats]) -> None:
        """Takes over what was published; other names are ignored."""
        basis, units = (values.get(name) for name in self._names)
        # One that is being made is made first: the newest directions come with all dense weights.
        if basis is None or units is None or self._next or not self.scan.n_items:
            return
        now = self.sketch
        if not (now and np.array_equal(basis, now.basis) and np.array_equal(units, now.units)):
            self._next = Sketch(basis.copy(), units.copy(), self.scan.n_items)

    def state(self) -> State:
        parts = {"scan": self.scan.state(), "directions": self.directions.state()}
        for name, sketch in (("sketch", self.sketch), ("next", self._next)):
            if sketch:
                parts[name] = sketch.state()
        return {
            "swept": self._swept,
            **{f"{name}.{key}": v for name, part in parts.items() for key, v in part.items()},
        }

    def load(self, state: State) -> None:
        self.scan.load(part_of(state, "scan."))
        self.directions.load(part_of(state, "directions."))
        sketches = (part_of(state, prefix) for prefix in ("sketch.", "next."))
        self.sketch, self._next = (Sketch.of(found) if found else None for found in sketches)
        self._swept, self._due, self._left = state["swept"].copy(), 0, 0

    def _sketches(self) -> list[Sketch]:
        return [sketch for sketch in (self.sketch, self._next) if sketch]

    def _all(self) -> list[Scan | Sketch]:
        return [self.scan, *self._sketches()]

    def _turn(self) -> None:
        """Begins the next sketch where the present one doesn't hold any more."""
        n, now = self.scan.n_items, self.sketch
        rows = np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.int32)
        vectors, biases = np.split(self._vectors_of(rows), [-1], axis=1)
        basis = self.directions.find(self._sizes)
        if basis is None or (
            now
            and self.directions.are_kept_by(now.basis)
            and now.basis.shape[1] < basis.shape[1] + _FEWER
            and have_room(now.units, vectors @ now.basis, biases)
        ):
            return
        self._next = Sketch(basis, units_of(vectors @ basis, biases), n)

    def _sweep(self, n: int, parts: list[Scan | Sketch]) -> None:
        """Looks at the next n items, all of them in turn."""
        known = self.scan.n_items
        if n := min(n, known):
            rows = (int(self._swept[0]) + np.arange(n)) % known
            self._swept[0] = (int(self._swept[0]) + n) % known
            self._put_in_turn(rows.astype(np.int32), parts)

    def _turns(self) -> int:
        """Items that have their turn with an update."""
        return min(_STEPS * _SWEPT, -(-self.scan.n_items // _TURNS))

    def _put_in_turn(self, rows: Ints, parts: list[Scan | Sketch]) -> None:
        self._put(rows, parts)
        self._left = max(self._left - len(rows), 0)
        if self._next:
            self._next.had_their_turn(len(rows))
            if not self._next.left:
                self.sketch, self._next = self._next, None

    def _put(self, rows: Ints, parts: list[Scan | Sketch]) -> None:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            vectors = self._vectors_of(some)
            for part in parts:
                part.put(some, vectors)
