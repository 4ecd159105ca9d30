"""What events say, column by column: read once each, without a Python loop over them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headwater.log.chunks import Chunk
from headwater.types import Bytes, Doubles, Flags, Longs

_UNKNOWN_TYPE = 0


@dataclass(slots=True)
class Columns:
    """B events in log order."""

    offsets: Longs  # (B,)
    times: Doubles  # (B,) stream times
    received: Doubles  # (B,)
    own_times: Doubles  # (B,) the client's
    types: Bytes  # (B,) type codes, 0 for an unknown type
    sessions: Longs  # (B,) hash of the client's session id, 0 for none
    imported: Flags  # (B,)


def columns(chunk: Chunk, codes: Mapping[str, int]) -> Columns:
    """The columns of a chunk's events.

    Args:
        chunk: entries of the log.
        codes: event type -> its code.
    """
    code = np.array([codes.get(name, _UNKNOWN_TYPE) for name in chunk.type_names], np.uint8)
    sessions = chunk.sessions
    n = len(sessions)
    return Columns(
        offsets=chunk.offsets[chunk.places],
        times=chunk.times[chunk.places],
        received=chunk.received[chunk.places],
        own_times=chunk.own_times,
        types=code[chunk.types],
        sessions=np.fromiter(map(_hash, sessions), np.int64, n)
        if any(sessions)
        else np.zeros(n, np.int64),
        imported=chunk.imported,
    )


def _hash(session_id: str | None) -> int:
    """A stable 32-bit hash, 0 for none: only compared with the same user's last session."""
    return 0 if session_id is None else zlib.crc32(session_id.encode()) or 1
