"""Which learned rows are still about the item that has the row now."""

from __future__ import annotations

import numpy as np

from headwater.types import Ints, TableRows


class Forgotten:
    """Where in the events log each item row was last cleared.

    A follower folds events ahead of the updates. By then a row may stand for another
    item, or for none, while updates that were learned before it was cleared are still on
    their way: what they carry for it is of the item that is gone.
    """

    def __init__(self) -> None:
        self._at = np.zeros(0, np.int64)  # per row, 0 for never

    def note(self, rows: Ints, offset: int) -> None:
        """Rows that were cleared behind ``offset``."""
        n = int(rows.max(initial=-1)) + 1
        if n > len(self._at):
            self._at = np.pad(self._at, (0, max(n, 2 * len(self._at)) - len(self._at)))
        self._at[rows] = offset

    def current(self, table: TableRows, trained_through: int) -> TableRows:
        """The rows that haven't been cleared behind what they were learned from."""
        at = np.zeros(len(table.rows), np.int64)
        known = table.rows < len(self._at)
        at[known] = self._at[table.rows[known]]
        kept = at <= trained_through
        return TableRows(table.rows[kept], table.values[kept])
