"""Lists of strings as two arrays, the only form in which strings enter a ``State``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from headwater.types import Bytes, Longs

# Ids come from clients' JSON, where a lone surrogate is legal: it is kept as it came.
_ERRORS = "surrogatepass"


def pack_strings(strings: Sequence[str]) -> tuple[Bytes, Longs]:
    r"""UTF-8 bytes of all strings, end to end, and (N + 1,) offsets into them.

    >>> text, offsets = pack_strings(["a", "", "né"])
    >>> text.tobytes(), offsets.tolist()
    (b'an\xc3\xa9', [0, 1, 1, 4])
    """
    encoded = [string.encode("utf-8", _ERRORS) for string in strings]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(part) for part in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def unpack_strings(text: Bytes, offsets: Longs) -> list[str]:
    """The strings of :func:`pack_strings`, in order.

    >>> unpack_strings(*pack_strings(["a", "", "né"]))
    ['a', '', 'né']
    """
    raw = text.tobytes()
    ends = offsets.tolist()
    return [raw[start:end].decode("utf-8", _ERRORS) for start, end in pairwise(ends)]
