"""Which row an id has: a hash table of numbers, for kernels that make no Python object per id.

An id is known by 128 bits of it, 96 of which are kept: by SipHash with a key that each process
draws for itself (Aumasson and Bernstein, INDOCRYPT 2012; one round and three, as Python has it), so
that nobody can make up two ids that are taken for one another, and chance finds two such among a
billion ids once in 100 billion tries. The ids themselves are nowhere here.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from headwater.log.chunks import Strings
from headwater.packing import pack_strings
from headwater.types import NO_ROW, Bytes, Ints, Longs

Hashes = NDArray[np.uint64]

NEW = NO_ROW - 1
"""Stands for the row that an id hasn't got yet."""

_KEY = (np.uint64(secrets.randbits(64)), np.uint64(secrets.randbits(64)))
"""No result depends on it: rows are given in order of first sighting."""

_FULL = 2 / 3
"""Part of the slots that may be taken."""


class Index:
    """Rows by id, by open addressing: 8 bytes a row and 12 to 24 for its slot.

    One thread adds, removes and looks up. Another one may ``find``, and may then miss an id that is
    just being added.
    """

    def __init__(self) -> None:
        self._n = 0
        # By slot the rest of an id's hash and its row + 1, 0 where it is free; by row the first
        # half of its hash. They don't always grow together: a row may be behind the end of
        # what who finds has got.
        self._arrays: tuple[Hashes, Hashes] = (np.zeros(8, np.uint64), np.zeros(0, np.uint64))

    def find(self, id: str) -> int:
        """The row of an id, ``NO_ROW`` when it has none."""
        return int(_find_one(_text(id), *_KEY, *self._arrays))

    def add(self, id: str, row: int) -> None:
        """Gives a row to an id that has none."""
        self.put(np.array([row], np.int32), _hash_one(_text(id), *_KEY))

    def look_up(self, ids: Sequence[str | None]) -> tuple[Ints, Hashes]:
        """(n,) the row of each id, ``NEW`` when it has none and ``NO_ROW`` where there is no id.

        And (n, 2) their hashes, for ``put``.
        """
        text, starts, lengths = _placed(ids)
        rows, hashes = np.empty(len(ids), np.int32), np.empty((len(ids), 2), np.uint64)
        _look_up(text, starts, lengths, *_KEY, *self._arrays, rows, hashes)
        return rows, hashes

    def put(self, rows: Ints, hashes: Hashes) -> bool:
        """Gives (n,) rows to ids that have none, by their (n, 2) hashes; False if one has."""
        slots, firsts = self._arrays
        self._n += len(rows)
        size = int(rows.max(initial=-1)) + 1
        if size > len(firsts):
            grown = np.zeros(max(size, len(firsts) * 5 // 4, 64), np.uint64)
            grown[: len(firsts)] = firsts
            firsts = grown
        if self._n > _FULL * len(slots):
            wider = np.zeros(1 << int(self._n / _FULL).bit_length(), np.uint64)
            _move(slots, firsts, wider)
            slots = wider
        fresh = bool(_put(rows, hashes, slots, firsts))
        self._arrays = slots, firsts
        return fresh

    def remove(self, rows: Ints) -> None:
        """Takes rows away from the ids that have them.

        Raises:
            KeyError: one of them has no id.
        """
        removed = _remove(rows, *self._arrays)
        self._n -= removed
        if removed < len(rows):
            raise KeyError(int(rows[removed]))


def _text(id: str) -> Bytes:
    return np.frombuffer(id.encode("utf-8", "surrogatepass"), np.uint8)


def _placed(ids: Sequence[str | None]) -> tuple[Bytes, Longs, Longs]:
    """UTF-8 bytes in which each id stands, from where, and its length; -1 where there is none.

    Raises:
        ValueError: there are fewer than their blocks say.
    """
    if isinstance(ids, Strings) and ids.parts:
        text = np.frombuffer(b"".join([part.array for part in ids.parts]), np.uint8)
        ends = np.cumsum([len(part.array) for part in ids.parts])
        ranges = np.array([(part.start, part.stop) for part in ids.parts]).reshape(-1, 2)
        starts, lengths = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
        if _parse(text, ends, ranges, starts, lengths):
            return text, starts, lengths
    text, offsets = pack_strings([id or "" for id in ids])
    lengths = np.diff(offsets)
    if len(lengths) != len(ids):
        raise ValueError(f"{len(ids)} ids are said to be there, and {len(lengths)} are")
    lengths[[place for place, id in enumerate(ids) if id is None]] = -1
    return text, offsets[:-1], lengths


@njit(cache=True, nogil=True)
def _parse(text: Bytes, ends: Longs, ranges: Longs, starts: Longs, lengths: Longs) -> bool:
    """Finds the strings of arrays in MessagePack; False where one holds something else.

    Args:
        text: the arrays behind each other; each is whole.
        ends: (P,) of them.
        ranges: (P, 2) the first string of each that is wanted, and the one behind the last.
        starts: (n,) is filled with where each wanted string begins,
        lengths: (n,) and with how long it is, -1 for nil.
    """
    filled, begin = 0, 0
    for p in range(len(ends)):
        at = begin
        head = _big_endian(text, at, 1)
        if head & 0xF0 == 0x90:
            n, at = head & 0x0F, at + 1
        elif head == 0xDC:
            n, at = _big_endian(text, at + 1, 2), at + 3
        elif head == 0xDD:
            n, at = _big_endian(text, at + 1, 4), at + 5
        else:
            return False
        first, stop = ranges[p]
        if stop > n:
            return False
        for place in range(stop):
            head = _big_endian(text, at, 1)
            if head & 0xE0 == 0xA0:
                size, at = head & 0x1F, at + 1
            elif head == 0xD9:
                size, at = _big_endian(text, at + 1, 1), at + 2
            elif head == 0xDA:
                size, at = _big_endian(text, at + 1, 2), at + 3
            elif head == 0xDB:
                size, at = _big_endian(text, at + 1, 4), at + 5
            elif head == 0xC0:
                size, at = -1, at + 1
            else:
                return False
            if place >= first:
                starts[filled], lengths[filled] = at, size
                filled += 1
            at += max(size, 0)
        begin = ends[p]
    return True


@njit(cache=True, nogil=True)
def _big_endian(text: Bytes, at: int, n: int) -> int:
    found = 0
    for k in range(n):
        found = found << 8 | int(np.int64(text[at + k]))
    return found


@njit(cache=True, nogil=True)
def _turned(x: np.uint64, by: int) -> np.uint64:
    return x << np.uint64(by) | x >> np.uint64(64 - by)


@njit(cache=True, nogil=True)
def _round(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a += b
    c += d
    b = _turned(b, 13) ^ a
    d = _turned(d, 16) ^ c
    a = _turned(a, 32) + d
    c += b
    d = _turned(d, 21) ^ a
    b = _turned(b, 17) ^ c
    return a, b, _turned(c, 32), d


@njit(cache=True, nogil=True)
def _hash(
    text: Bytes, start: int, length: int, key: np.uint64, other_key: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """SipHash-1-3 of 128 bits."""
    a = key ^ np.uint64(0x736F6D6570736575)
    b = other_key ^ np.uint64(0x646F72616E646F6D) ^ np.uint64(0xEE)
    c = key ^ np.uint64(0x6C7967656E657261)
    d = other_key ^ np.uint64(0x7465646279746573)
    whole = length // 8 * 8
    for at in range(start, start + whole, 8):
        word = np.uint64(0)
        for k in range(8):
            word |= np.uint64(text[at + k]) << np.uint64(8 * k)
        d ^= word
        a, b, c, d = _round(a, b, c, d)
        a ^= word
    word = np.uint64(length) << np.uint64(56)
    for k in range(length - whole):
        word |= np.uint64(text[start + whole + k]) << np.uint64(8 * k)
    d ^= word
    a, b, c, d = _round(a, b, c, d)
    a ^= word
    c ^= np.uint64(0xEE)
    for _ in range(3):
        a, b, c, d = _round(a, b, c, d)
    first = a ^ b ^ c ^ d
    b ^= np.uint64(0xDD)
    for _ in range(3):
        a, b, c, d = _round(a, b, c, d)
    return first, a ^ b ^ c ^ d


@njit(cache=True, nogil=True)
def _row_of(first: np.uint64, second: np.uint64, slots: Hashes, firsts: Hashes) -> int:
    mask = np.uint64(len(slots) - 1)
    place = first & mask
    while True:
        slot = slots[place]
        if slot == 0:
            return NEW
        if slot >> np.uint64(32) == second >> np.uint64(32):
            row = np.int64(slot & np.uint64(0xFFFFFFFF)) - 1
            if row < len(firsts) and firsts[row] == first:
                return int(row)
        place = (place + np.uint64(1)) & mask


@njit(cache=True)
def _find_one(
    text: Bytes, key: np.uint64, other_key: np.uint64, slots: Hashes, firsts: Hashes
) -> int:
    first, second = _hash(text, 0, len(text), key, other_key)
    return max(_row_of(first, second, slots, firsts), NO_ROW)


@njit(cache=True)
def _hash_one(text: Bytes, key: np.uint64, other_key: np.uint64) -> Hashes:
    hashes = np.empty((1, 2), np.uint64)
    hashes[0, 0], hashes[0, 1] = _hash(text, 0, len(text), key, other_key)
    return hashes


@njit(cache=True, nogil=True)
def _look_up(
    text: Bytes,
    starts: Longs,
    lengths: Longs,
    key: np.uint64,
    other_key: np.uint64,
    slots: Hashes,
    firsts: Hashes,
    rows: Ints,
    hashes: Hashes,
) -> None:
    for n in range(len(starts)):
        if lengths[n] >= 0:
            hashes[n, 0], hashes[n, 1] = _hash(text, starts[n], lengths[n], key, other_key)
    # Apart from the hashes: what waits for the memory then waits together.
    for n in range(len(starts)):
        if lengths[n] < 0:
            rows[n] = NO_ROW
        else:
            rows[n] = _row_of(hashes[n, 0], hashes[n, 1], slots, firsts)


@njit(cache=True)
def _put(rows: Ints, hashes: Hashes, slots: Hashes, firsts: Hashes) -> bool:
    fresh = True
    for n in range(len(rows)):
        first, second = hashes[n]
        fresh &= _row_of(first, second, slots, firsts) == NEW
        firsts[rows[n]] = first
        _set(second >> np.uint64(32) << np.uint64(32) | np.uint64(rows[n] + 1), first, slots)
    return fresh


@njit(cache=True)
def _set(slot: np.uint64, first: np.uint64, slots: Hashes) -> None:
    mask = np.uint64(len(slots) - 1)
    place = first & mask
    while slots[place] != 0:
        place = (place + np.uint64(1)) & mask
    slots[place] = slot


@njit(cache=True)
def _first_of(slot: np.uint64, firsts: Hashes) -> np.uint64:
    first: np.uint64 = firsts[np.int64(slot & np.uint64(0xFFFFFFFF)) - 1]
    return first


@njit(cache=True)
def _move(slots: Hashes, firsts: Hashes, wider: Hashes) -> None:
    for slot in slots:
        if slot != 0:
            _set(slot, _first_of(slot, firsts), wider)


@njit(cache=True)
def _remove(rows: Ints, slots: Hashes, firsts: Hashes) -> int:
    """How many of the rows were there, before the first one that wasn't."""
    mask, one = np.uint64(len(slots) - 1), np.uint64(1)
    for n in range(len(rows)):
        row = rows[n]
        hole = firsts[row] & mask
        while np.int64(slots[hole] & np.uint64(0xFFFFFFFF)) != row + 1:
            if slots[hole] == 0:
                return n
            hole = (hole + one) & mask
        # What stands behind the hole moves into it, where its own place isn't in between.
        place = (hole + one) & mask
        while slots[place] != 0:
            own = _first_of(slots[place], firsts) & mask
            if (place - own) & mask >= (place - hole) & mask:
                slots[hole] = slots[place]
                hole = place
            place = (place + one) & mask
        slots[hole] = 0
    return len(rows)
