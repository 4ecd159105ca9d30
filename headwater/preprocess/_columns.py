"""What events say, column by column: read once each, without a Python loop over them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter

import numpy as np

from headwater.types import Bytes, Doubles, Flags, Longs, Record

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


def columns(records: Sequence[Record], codes: Mapping[str, int]) -> Columns:
    """The columns of records of which every one is an event's.

    Args:
        codes: event type -> its code.
    """
    n = len(records)
    events = [record.entry for record in records]
    names = map(attrgetter("type"), events)
    sessions = list(map(attrgetter("session_id"), events))
    return Columns(
        offsets=np.fromiter(map(attrgetter("offset"), records), np.int64, n),
        times=np.fromiter(map(attrgetter("stream_time"), records), np.float64, n),
        received=np.fromiter(map(attrgetter("received_at"), records), np.float64, n),
        own_times=np.fromiter(map(attrgetter("timestamp"), events), np.float64, n),
        types=np.fromiter(map(codes.get, names, repeat(_UNKNOWN_TYPE)), np.uint8, n),
        sessions=np.fromiter(map(_hash, sessions), np.int64, n)
        if any(sessions)
        else np.zeros(n, np.int64),
        imported=np.fromiter(map(attrgetter("imported"), events), np.bool_, n),
    )


def _hash(session_id: str | None) -> int:
    """A stable 32-bit hash, 0 for none: only compared with the same user's last session."""
    return 0 if session_id is None else zlib.crc32(session_id.encode()) or 1
