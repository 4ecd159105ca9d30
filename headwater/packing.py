"""What goes into a ``State``, and comes out again: lists of strings as two arrays, the only form in
which strings enter one, and the states of parts, whose names begin with the part's.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from itertools import pairwise

import numpy as np

from headwater.types import Bytes, Longs, State

# Ids come from clients' JSON, where a lone surrogate is legal: it is kept as it came.
_ERRORS = "surrogatepass"


def pack_strings(strings: Sequence[str]) -> tuple[Bytes, Longs]:
    r"""UTF-8 bytes of all strings, end to end, and (N + 1,) offsets into them.

    >>> text, offsets = pack_strings(["a", "", "né"])
    >>> text.tobytes(), offsets.tolist()
    (b'an\xc3\xa9', [0, 1, 1, 4])
    """
    joined = "".join(strings)
    text = joined.encode("utf-8", _ERRORS)
    if len(text) != len(joined):
        return pack_bytes([string.encode("utf-8", _ERRORS) for string in strings])
    return np.frombuffer(text, np.uint8), _offsets(strings)


def pack_bytes(parts: Sequence[bytes]) -> tuple[Bytes, Longs]:
    r"""Likewise, of strings that are UTF-8 already.

    >>> text, offsets = pack_bytes([b"a", b"", b"n\xc3\xa9"])
    >>> unpack_strings(text, offsets)
    ['a', '', 'né']
    """
    return np.frombuffer(b"".join(parts), np.uint8), _offsets(parts)


def _offsets(parts: Sequence[Sized]) -> Longs:
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
    return offsets


def unpack_strings(text: Bytes, offsets: Longs) -> list[str]:
    """The strings of :func:`pack_strings`, in order.

    >>> unpack_strings(*pack_strings(["a", "", "né"]))
    ['a', '', 'né']
    """
    raw = text.tobytes()
    ends = offsets.tolist()
    return [raw[start:end].decode("utf-8", _ERRORS) for start, end in pairwise(ends)]


def part_of(state: State, prefix: str) -> State:
    """The arrays whose names begin with ``prefix``, by the rest of their names.

    >>> part_of({"model.rows": 1, "model.a.b": 2, "rows": 3}, "model.")
    {'rows': 1, 'a.b': 2}
    """
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
