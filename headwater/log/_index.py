"""The index of ids in an events log's file: sorted runs, and a filter of what is in them.

A log-structured merge tree (O'Neil et al., 1996): ids come in runs, of which the smaller ones are
merged as in a binary counter (Bentley and Saxe, 1980), so that an id is written some times
over, but always among its neighbours. Most that is asked for isn't there; that a Bloom filter
(1970) in memory tells without a look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from headwater.types import Flags

STATEMENTS = (
    # ``range`` is the first byte of the ids, ``newest`` the largest of their offsets.
    """CREATE TABLE runs(
        number INTEGER PRIMARY KEY,
        range INTEGER NOT NULL,
        n INTEGER NOT NULL,
        newest INTEGER NOT NULL)""",
    "CREATE INDEX runs_of_range ON runs(range, number)",
    """CREATE TABLE ids(
        run INTEGER NOT NULL,
        first INTEGER NOT NULL,
        ids BLOB NOT NULL,
        PRIMARY KEY(run, first)) WITHOUT ROWID""",
)

PAGE = 80
"""Ids of a row, two of which fill a page of SQLite's."""

_ID = np.dtype([("key", "<i8"), ("rest", "<i8"), ("offset", "<i8")])
"""16 bytes of an id, by whose first half they are in order, and its offset."""

_RANGE = 255
"""A mask: the first byte of an id, which is the lowest of its key."""

_DROPPED_AT_ONCE = 8
"""Runs: more than 100 entries, which are dropped at once, have made."""

Keys = NDArray[Any]


class Index:
    """Ids with their offsets; to be used within the transactions of a connection.

    Runs that another process writes meanwhile aren't known to be there.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        n = connection.execute("SELECT sum(n) FROM runs").get
        self._filters = [_Filter(int(n or 0))]
        for (stored,) in connection.execute("SELECT ids FROM ids"):
            self._filters[0].add(np.frombuffer(stored, _ID))

    def find(self, wanted: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
        """Those that are there, with their offsets."""
        keys = np.frombuffer(b"".join(wanted), "<i8").reshape(-1, 2)
        maybe = np.zeros(len(wanted), np.bool_)
        for one in self._filters:
            maybe |= one.may_hold(keys)
        runs: dict[int, list[int]] = defaultdict(list)
        for place in np.flatnonzero(maybe).tolist():
            id, key = wanted[place], int(keys[place, 0])
            if id[0] not in runs:
                runs[id[0]] = [number for number, _ in self._runs(id[0])]
            for number in runs[id[0]]:
                offset = self._offset(number, key, id)
                if offset is not None:
                    yield id, offset
                    break

    def add(self, run: Keys, start: int) -> None:
        """Adds ids of one range, one or more.

        Args:
            run: as of ``by_range``.
            start: what has an offset up to this needn't be found any more.
        """
        range = int(run["key"][0]) & _RANGE
        self._note(run, start)
        merged = [run]
        for number, n in self._runs(range):
            if n > sum(map(len, merged)):
                break
            pages = self._connection.execute("SELECT ids FROM ids WHERE run = ?", (number,))
            merged += [np.frombuffer(stored, _ID) for (stored,) in pages]
            delete(self._connection, number)
        run = np.concatenate(merged)
        run = run[run["offset"] > start]
        # An id that another process moved as well is there twice; it is found where it came last.
        run = run[np.lexsort((run["offset"], run["key"]))]
        is_last = np.append(run["key"][1:] != run["key"][:-1], True)
        if len(run):
            self._write(range, run[is_last])

    def _write(self, range_: int, run: Keys) -> None:
        number = self._connection.execute(
            "INSERT INTO runs(range, n, newest) VALUES(?, ?, ?) RETURNING number",
            (range_, len(run), int(run["offset"].max())),
        ).get
        self._connection.executemany(
            "INSERT INTO ids VALUES(?, ?, ?)",
            [
                (number, int(run["key"][place]), run[place : place + PAGE].tobytes())
                for place in range(0, len(run), PAGE)
            ],
        )

    def _runs(self, range: int) -> list[tuple[int, int]]:
        """Number and size of each run, the newest first."""
        found: list[Any] = self._connection.execute(
            "SELECT number, n FROM runs WHERE range = ? ORDER BY number DESC", (range,)
        ).fetchall()
        return found

    def _offset(self, number: int, key: int, id: bytes) -> int | None:
        page = self._connection.execute(
            "SELECT ids FROM ids WHERE run = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (number, key),
        ).get
        place = -1 if page is None else page.find(id)
        while place % _ID.itemsize and place > 0:
            place = page.find(id, place + 1)
        return None if place < 0 else int(np.frombuffer(page, _ID)["offset"][place // _ID.itemsize])

    def _note(self, run: Keys, start: int) -> None:
        self._filters = [one for one in self._filters if one.newest > start]
        if not self._filters or self._filters[-1].is_full:
            # For half of what is kept, so that soon all that an old one holds is dropped.
            self._filters.append(_Filter((int(run["offset"].max()) - start) // 2))
        self._filters[-1].add(run)


def by_range(ids: Mapping[bytes, int]) -> list[Keys]:
    """A run for every range of which there are ids, not in order."""
    run = np.zeros(len(ids), _ID)
    run["key"], run["rest"] = np.frombuffer(b"".join(ids), "<i8").reshape(-1, 2).T
    run["offset"] = np.fromiter(ids.values(), np.int64, len(ids))
    of = (run["key"] & _RANGE).astype(np.uint8)
    run = run[np.argsort(of, kind="stable")]
    found = np.split(run, np.cumsum(np.bincount(of, minlength=_RANGE + 1)))
    return [some for some in found if len(some)]


def drop(connection: apsw.Connection, start: int) -> None:
    """Drops runs none of whose offsets is above ``start``."""
    found: list[Any] = connection.execute(
        "SELECT number FROM runs WHERE newest <= ? LIMIT ?", (start, _DROPPED_AT_ONCE)
    ).fetchall()
    for (number,) in found:
        delete(connection, number)


def delete(connection: apsw.Connection, number: int) -> None:
    """Deletes a run."""
    connection.execute("DELETE FROM ids WHERE run = ?", (number,))
    connection.execute("DELETE FROM runs WHERE number = ?", (number,))


class _Filter:
    """A Bloom filter: 10 to 20 bits for each id, of which it takes fewer than 1 % for others.

    What it holds can't be taken out; ``newest`` is the largest of the offsets of that.
    """

    _LEAST = 1 << 18
    _PROBES = np.arange(6, dtype=np.uint64)

    def __init__(self, capacity: int) -> None:
        n_bits = 1 << (10 * max(capacity, self._LEAST) - 1).bit_length()
        self.newest = 0
        self._capacity = n_bits // 10
        self._mask = np.uint64(n_bits - 1)
        self._bytes = np.zeros(n_bits // 8, np.uint8)
        self._n = 0

    @property
    def is_full(self) -> bool:
        return self._n >= self._capacity

    def add(self, run: Keys) -> None:
        bits = self._bits(np.stack([run["key"], run["rest"]], axis=1))
        np.bitwise_or.at(self._bytes, bits >> np.uint64(3), self._flags(bits))
        self._n += len(run)
        self.newest = max(self.newest, int(run["offset"].max()))

    def may_hold(self, keys: Keys) -> Flags:
        bits = self._bits(keys)
        held: Flags = (self._bytes[bits >> np.uint64(3)] & self._flags(bits) > 0).all(axis=1)
        return held

    def _bits(self, keys: Keys) -> Keys:
        """(n, 6) of each id: its halves are two hashes (Kirsch and Mitzenmacher, 2006)."""
        first, second = keys.astype("<i8").view(np.uint64).T
        step = second | np.uint64(1)
        bits: Keys = (first[:, None] + step[:, None] * self._PROBES) & self._mask
        return bits

    def _flags(self, bits: Keys) -> NDArray[np.uint8]:
        return np.uint8(1) << (bits & np.uint64(7)).astype(np.uint8)
