"""The item tower: the vector of an item, from a row of its own and the rows of its features.

    i = r_i + 1 / sqrt(n) * (t_1 + ... + t_n)

with r_i the item's row, and t_j that of each of its n tokens (categories, tags, attributes, words
of the title). The last column of both is a bias. This is the seed formula "an item is a weighted
sum of features": an item that was put a moment ago has the vector that its tokens give it, and
what is learned of the item alone comes on top. An item without tokens is its row.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.model._first_look import FirstLook
from headwater.model.content import Content
from headwater.model.tables import Table
from headwater.packing import part_of
from headwater.types import Flags, Floats, Ints, State, TableRows

_ROW_SCALE = 0.05
"""Standard deviation of a new row."""

_NOTHING = np.zeros(0, np.int32)


class Tower:
    """Rows of items and of tokens, and the vectors that they add up to.

    Args:
        dim: D; a row has D + 1 values.
        content: knows the tokens of every item.
        exact_items: up to so many, every one is scored exactly.
        seed: of the initial rows.
    """

    def __init__(self, dim: int, content: Content, exact_items: int, seed: int) -> None:
        self.first_look = FirstLook("sequence.items", dim, exact_items, self.vectors_of)
        self.items = Table("sequence.items", dim + 1, _ROW_SCALE, seed)
        self.tokens = Table("sequence.tokens", dim + 1, _ROW_SCALE, seed + 1)
        self.content = content
        self._composed = np.zeros((0, dim + 1), np.float32)
        self._stale = np.zeros(0, np.bool_)
        self._changed = np.zeros(0, np.bool_)  # tokens, since items were last added up
        self._slots = np.zeros(0, np.int32)  # a step's scratch: -1 between steps
        self._places = np.zeros(0, np.int32)  # a product's: 0 between them

    def grow(self, n_items: int) -> None:
        """Makes room for item rows up to ``n_items``."""
        self.items.grow(n_items)
        self.content.grow(n_items)
        if n_items > len(self._stale):
            grown = np.ones(max(n_items, 2 * len(self._stale)), np.bool_)
            grown[: len(self._stale)] = self._stale
            self._stale = grown
        self.first_look.grow(n_items)

    def describe(self, rows: Ints) -> None:
        """Items' tokens have changed: what nothing was learned of begins anew.

        The row of an item with tokens begins at zero, so that only they speak.
        """
        self.tokens.grow(self.content.n_tokens)
        self.items.restart(rows, self.content.item_tokens[rows, 0] >= 0)
        self._stale[rows] = True
        self.first_look.look_at(rows)

    def vectors(self) -> Floats:
        """(N, D + 1) of every item, not to be written to.

        Only what has changed since the last call, in its row or in one of its tokens', is added up
        again.
        """
        if not self.content.n_described:
            return self.items.values
        n = len(self.items)
        if n > len(self._composed):
            composed = np.empty((len(self._stale), self._composed.shape[1]), np.float32)
            composed[: len(self._composed)] = self._composed
            self._composed = composed
        tokens = self.content.item_tokens
        if self._changed.any():
            _mark(tokens[:n], self._changed, self._stale)
            self._changed[:] = False
        rows = np.flatnonzero(self._stale[:n]).astype(np.int32)
        if len(rows):
            _compose(rows, self.items.values, tokens, self.tokens.values, self._composed, rows)
            self._stale[:n] = False
        return self._composed[:n]

    def vectors_of(self, rows: Ints) -> Floats:
        """(R, D + 1) of given items, added up now: as many as are asked for, and no more."""
        out = np.empty((len(rows), self.items.dim), np.float32)
        places = np.arange(len(rows), dtype=np.int32)
        tokens = self.content.item_tokens
        _compose(rows, self.items.values, tokens, self.tokens.values, out, places)
        return out

    def products(self, users: Floats, rows: Ints) -> Floats:
        """(B, C) of (B, D + 1) users with given items' vectors, each item's added up once.

        0 for ``NO_ROW``.
        """
        if len(self.items) > len(self._places):
            self._places = np.zeros(2 * len(self.items), np.int32)
        distinct, places = _distinct(rows, self._places)
        out = np.empty(rows.shape, np.float32)
        _multiply(users, self.vectors_of(distinct), places, out)
        return out

    def descend(self, rows: Ints, gradients: Floats, users: Floats, learning_rate: float) -> None:
        """One step down the gradients of items' vectors, for their rows and for their tokens'.

        Args:
            rows: (R,) distinct item rows.
            gradients: (R, D + 1).
            users: (B, D) vectors of users that they are of.
        """
        self.items.descend(rows, gradients, learning_rate)
        self._stale[rows] = True
        if len(self.tokens) > len(self._slots):
            self._slots = np.full(2 * len(self.tokens), -1, np.int32)
        tokens, sums = _spread(rows, self.content.item_tokens, gradients, self._slots)
        if len(tokens):
            self.tokens.descend(tokens, sums, learning_rate)
            self._note(tokens)
        self.first_look.look_at(rows)
        self.first_look.follow_step(users, tokens=bool(len(tokens)))

    def forget(self, items: Ints) -> None:
        """Clears the rows of items that are gone."""
        self.items.clear(items)
        self._stale[items] = True
        self.first_look.look_at(items)

    def forget_tokens(self, tokens: Ints) -> None:
        """Clears the rows of tokens that no item has."""
        self.tokens.clear(tokens[self.tokens.learned[tokens]])

    def take_changes(self) -> tuple[dict[str, TableRows], dict[str, Ints]]:
        """Rows and tombstones of both tables since the last call."""
        found = {table.name: table.take_changes() for table in (self.items, self.tokens)}
        return (
            {name: rows for name, (rows, _) in found.items()},
            {name: cleared for name, (_, cleared) in found.items()},
        )

    def put(self, tables: dict[str, TableRows], tombstones: dict[str, Ints]) -> None:
        """Takes over what an update carries."""
        self.first_look.look_on()
        for table in (self.items, self.tokens):
            cleared = tombstones.get(table.name, _NOTHING)
            if len(cleared):
                table.grow(int(cleared.max()) + 1)
                table.clear(cleared)
            table.take_changes()
            if table.name in tables:
                table.put(tables[table.name])
        self.grow(len(self.items))
        cleared = tombstones.get(self.items.name, _NOTHING)
        # An item that was put again behind its removal begins as it did then.
        if len(cleared):
            self.describe(cleared)
        retokened, names = False, (self.items.name, self.tokens.name)
        for found in (tombstones, {name: table.rows for name, table in tables.items()}):
            rows, tokens = (found.get(table, _NOTHING) for table in names)
            self._stale[rows] = True
            self.first_look.look_at(rows)
            self._note(tokens)
            retokened |= bool(len(tokens))
        self.first_look.follow_update(tokens=retokened)

    def state(self) -> State:
        return {
            **{f"rows.{name}": value for name, value in self.items.state().items()},
            **{f"tokens.{name}": value for name, value in self.tokens.state().items()},
            **{f"first_look.{name}": value for name, value in self.first_look.state().items()},
        }

    def load(self, state: State) -> None:
        self.items.load(part_of(state, "rows."))
        self.tokens.load(part_of(state, "tokens."))
        self.first_look.load(part_of(state, "first_look."))
        self.grow(len(self.items))
        self._stale[:] = True

    def _note(self, tokens: Ints) -> None:
        """The rows of these tokens have changed."""
        if len(self.tokens) > len(self._changed):
            grown = np.zeros(2 * len(self.tokens), np.bool_)
            grown[: len(self._changed)] = self._changed
            self._changed = grown
        self._changed[tokens] = True


@njit(cache=True, nogil=True)
def _mark(tokens: Ints, changed: Flags, stale: Flags) -> None:
    """Makes those items stale that have a token which changed."""
    for row in range(len(tokens)):
        for token in tokens[row]:
            # The newest tokens may be those of no row yet.
            if token < 0 or stale[row]:
                break
            stale[row] = token < len(changed) and changed[token]


@njit(cache=True, nogil=True)
def _compose(
    rows: Ints, items: Floats, tokens: Ints, token_values: Floats, out: Floats, places: Ints
) -> None:
    """Writes the vector of ``rows[k]`` to ``out[places[k]]``."""
    dim = items.shape[1]
    total = np.empty(dim, np.float32)
    for k in range(len(rows)):
        # Loops over places that might be below 0 aren't done 16 at a time.
        row, place = np.uintp(rows[k]), np.uintp(places[k])
        n = 0
        while n < tokens.shape[1] and tokens[row, n] >= 0:
            token = np.uintp(tokens[row, n])
            if n == 0:
                for d in range(dim):
                    total[d] = token_values[token, d]
            else:
                for d in range(dim):
                    total[d] += token_values[token, d]
            n += 1
        if n == 0:
            for d in range(dim):
                out[place, d] = items[row, d]
        else:
            scale = np.float32(1.0 / np.sqrt(n))
            for d in range(dim):
                out[place, d] = items[row, d] + scale * total[d]


@njit(cache=True, nogil=True)
def _distinct(rows: Ints, places: Ints) -> tuple[Ints, Ints]:
    """The distinct ones of (B, C) rows, and the place of each among them; -1 where there is none.

    Args:
        places: (N,) all 0, before and after.
    """
    found = np.empty(rows.size, np.int32)
    at = np.empty(rows.shape, np.int32)
    n = 0
    for b in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            row = rows[b, c]
            if row < 0:
                at[b, c] = -1
                continue
            if places[row] == 0:
                found[n] = row
                n += 1
                places[row] = n
            at[b, c] = places[row] - 1
    places[found[:n]] = 0
    return found[:n], at


# Sums in any order, so that they are done 16 at a time; the order is always the same one.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _multiply(users: Floats, vectors: Floats, places: Ints, out: Floats) -> None:
    dim = users.shape[1]
    for b in range(len(out)):
        user = users[b]
        for c in range(out.shape[1]):
            total = np.float32(0)
            if places[b, c] < 0:
                out[b, c] = total
                continue
            vector = vectors[places[b, c]]
            for d in range(dim):
                total += user[d] * vector[d]
            out[b, c] = total


@njit(cache=True, nogil=True)
def _spread(rows: Ints, tokens: Ints, gradients: Floats, slots: Ints) -> tuple[Ints, Floats]:
    """The tokens of items, and the gradient of each: the sum over the items that have it.

    Args:
        slots: (V,) all -1, before and after.
    """
    dim = gradients.shape[1]
    found = np.empty(len(rows) * tokens.shape[1], np.int32)
    n_found = 0
    for row in rows:
        for t in range(_count(tokens[row])):
            token = tokens[row, t]
            if slots[token] < 0:
                slots[token] = n_found
                found[n_found] = token
                n_found += 1
    sums = np.zeros((n_found, dim), np.float32)
    for k in range(len(rows)):
        n = _count(tokens[rows[k]])
        scale = np.float32(1.0 / np.sqrt(max(n, 1)))
        for t in range(n):
            into = sums[slots[tokens[rows[k], t]]]
            for d in range(dim):
                into[d] += scale * gradients[k, d]
    slots[found[:n_found]] = -1
    return found[:n_found].copy(), sums


@njit(cache=True, nogil=True)
def _count(tokens: Ints) -> int:
    n = 0
    while n < len(tokens) and tokens[n] >= 0:
        n += 1
    return n
