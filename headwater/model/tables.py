"""Tables: rows that are learned one at a time.

A table keeps, per row, its values, the row-wise Adagrad accumulator, whether anything
was learned of it, and whether it changed since it was last published. Updates,
snapshots, rollback and expiry need nothing else, and are written once for all tables.
"""

from __future__ import annotations

import numpy as np

from headwater.types import Flags, Floats, Ints, State, TableRows

_BLOCK = 1024
"""Rows that are initialised together. A row's first values depend on the seed and its number
alone, never on how the table grew, so that trainer and server agree before any update."""


class Table:
    """N rows of D float32 values, learned by row-wise Adagrad.

    Args:
        name: unique within a model; names the rows on the updates log.
        dim: values per row.
        scale: standard deviation of a new row.
        seed: of the initial values.
    """

    def __init__(self, name: str, dim: int, scale: float, seed: int) -> None:
        self.name = name
        self.dim = dim
        self.scale = scale
        self.seed = seed
        self._size = self._drawn = 0  # rows in use, and rows that have their initial values
        self._values = np.zeros((0, dim), np.float32)
        self._accumulators = np.zeros(0, np.float32)
        self._dirty = np.zeros(0, np.bool_)
        self._learned = np.zeros(0, np.bool_)
        self._cleared: set[int] = set()

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> Floats:
        """(N, D), a view: written to by this class only."""
        return self._values[: self._size]

    @property
    def learned(self) -> Flags:
        """(N,) whether anything was learned of a row since it began, a view."""
        return self._learned[: self._size]

    def grow(self, size: int) -> None:
        """Makes room for rows up to ``size``."""
        if size > len(self._values):
            capacity = -(-max(size, len(self._values) * 5 // 4) // _BLOCK) * _BLOCK
            old = len(self._values)
            values = np.zeros((capacity, self.dim), np.float32)
            values[: self._drawn] = self._values[: self._drawn]
            self._values = values
            self._accumulators = np.concatenate(
                [self._accumulators, np.zeros(capacity - old, np.float32)]
            )
            fresh_flags = np.zeros(capacity - old, np.bool_)
            self._dirty = np.concatenate([self._dirty, fresh_flags])
            self._learned = np.concatenate([self._learned, fresh_flags])
        while self._drawn < size:  # and no further: what nobody has written to takes no memory
            block = self._initial_block(self._drawn // _BLOCK)
            self._values[self._drawn : self._drawn + _BLOCK] = block
            self._drawn += _BLOCK
        self._size = max(self._size, size)

    def descend(self, rows: Ints, gradients: Floats, learning_rate: float) -> None:
        """One step of row-wise Adagrad (Duchi et al. 2011; one accumulator a row as in DLRM).

        With g the gradient of a row: acc += mean(g^2); row -= lr * g / sqrt(acc).

        Args:
            rows: (R,) distinct rows.
            gradients: (R, D).
        """
        self._accumulators[rows] += np.mean(gradients * gradients, axis=1)
        rates = learning_rate / (np.sqrt(self._accumulators[rows]) + 1e-8)
        self._values[rows] -= rates[:, None] * gradients
        self._dirty[rows] = True
        self._learned[rows] = True

    def restart(self, rows: Ints, at_zero: Flags) -> None:
        """Sets those of the rows that nothing was learned of to zero, or to their initial values.

        Args:
            rows: (R,).
            at_zero: (R,) whether it is to be zero.
        """
        unlearned = ~self._learned[rows]
        self._values[rows[unlearned & at_zero]] = 0.0
        self._initialise(rows[unlearned & ~at_zero])

    def clear(self, rows: Ints) -> None:
        """Back to the initial values: what the row stood for is gone."""
        self._initialise(rows)
        self._accumulators[rows] = 0
        self._dirty[rows] = False
        self._learned[rows] = False
        self._cleared.update(rows.tolist())

    def take_changes(self) -> tuple[TableRows, Ints]:
        """The rows that changed and the rows that were cleared since the last call."""
        rows = np.flatnonzero(self._dirty).astype(np.int32)
        changes = TableRows(rows=rows, values=self._values[rows])
        cleared = np.array(sorted(self._cleared), np.int32)
        self._dirty[rows] = False
        self._cleared.clear()
        return changes, cleared

    def put(self, changes: TableRows) -> None:
        """Takes over published rows."""
        if len(changes.rows):
            self.grow(int(changes.rows.max()) + 1)
            self._values[changes.rows] = changes.values
            self._learned[changes.rows] = True

    def state(self) -> State:
        return {
            "values": self._values[: self._size],
            "accumulators": self._accumulators[: self._size],
            "dirty": self._dirty[: self._size],
            "learned": self._learned[: self._size],
            "cleared": np.array(sorted(self._cleared), np.int32),
        }

    def load(self, state: State) -> None:
        n = self._size = len(state["values"])
        capacity = self._drawn = -(-n // _BLOCK) * _BLOCK
        self._values = np.empty((capacity, self.dim), np.float32)
        self._accumulators = np.zeros(capacity, np.float32)
        self._dirty = np.zeros(capacity, np.bool_)
        self._learned = np.zeros(capacity, np.bool_)
        if n < capacity:
            self._values[-_BLOCK:] = self._initial_block(capacity // _BLOCK - 1)
        self._values[:n] = state["values"]
        self._accumulators[:n] = state["accumulators"]
        self._dirty[:n] = state["dirty"]
        self._learned[:n] = state["learned"]
        self._cleared = set(state["cleared"].tolist())

    def _initialise(self, rows: Ints) -> None:
        blocks = rows // _BLOCK
        for block in np.unique(blocks).tolist():
            of_block = rows[blocks == block]
            self._values[of_block] = self._initial_block(block)[of_block % _BLOCK]

    def _initial_block(self, block: int) -> Floats:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, block]))
        return generator.normal(0.0, self.scale, (_BLOCK, self.dim)).astype(np.float32)
