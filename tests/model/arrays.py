"""Batches, contexts and examples for a model, small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headwater.config import Config
from headwater.model import Examples
from headwater.preprocess import Preprocessor
from headwater.types import NO_ROW, Batch, Contexts, Event, Record, State
from tests.preprocess.plain import cut, records

LENGTH = 10


def small(**sections: Any) -> Config:
    """A configuration whose every step takes a millisecond."""
    own: dict[str, Any] = {
        "preprocess": {"history_length": LENGTH},
        "sequence": {"dim": 8, "layers": 1, "negatives": 64, "replay_buffer": 500},
        "mixture": {"candidates": 10, "hidden": 8, "replay_buffer": 300},
    }
    return Config(
        **{name: own.get(name, {}) | sections.get(name, {}) for name in {*own, *sections}}
    )


def stream(rows: Sequence[tuple[Any, ...]]) -> list[Record]:
    """Records of (user, item, time) or (user, item, time, type)."""
    events = [
        Event(f"e{n}", row[3] if len(row) > 3 else "view", str(row[0]), row[2], f"{row[1]}")
        for n, row in enumerate(rows)
    ]
    return records(events, [event.timestamp for event in events])


def batches(
    config: Config, found: Sequence[Record], ends: Sequence[int] = ()
) -> tuple[list[Batch], list[str]]:
    """The stream as batches that end at ``ends``, and the items by row."""
    preprocessor = Preprocessor(config)
    made = [preprocessor.batch(piece)[0] for piece in cut(found, ends)]
    return made, list(preprocessor.items)


def contexts(
    histories: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]] | None = None,
    excluded: Sequence[Sequence[int]] | None = None,
    now: float = 1e9,
    length: int = LENGTH,
) -> Contexts:
    """Requests at ``now`` behind histories of item rows, one event every ten minutes."""
    n = len(histories)
    made = Contexts(
        users=np.arange(n, dtype=np.int32),
        times=np.full(n, now),
        history_items=np.full((n, length), NO_ROW, np.int32),
        history_types=np.zeros((n, length), np.uint8),
        history_times=np.zeros((n, length)),
        history_cleaned=np.zeros((n, length), np.bool_),
        history_lengths=np.array([len(history) for history in histories], np.int64),
        session_lengths=np.array([min(len(history), 3) for history in histories], np.int32),
        excluded_starts=np.cumsum([0, *(len(rows) for rows in excluded or [[]] * n)]),
        excluded=np.array([row for rows in excluded or [] for row in rows], np.int32),
    )
    for b, history in enumerate(histories):
        if k := len(history[-length:]):
            made.history_items[b, -k:] = history[-length:]
            made.history_types[b, -k:] = types[b][-length:] if types else 1
            made.history_times[b, -k:] = now - 600.0 * np.arange(k, 0, -1)
    return made


def examples(
    histories: Sequence[Sequence[int]],
    targets: Sequence[int],
    type: int = 1,
    length: int = LENGTH,
) -> Examples:
    """What came next after each whole history, with weight 1."""
    made = contexts(histories, length=length)
    n = len(histories)
    return Examples(
        items=made.history_items,
        types=np.where(made.history_items >= 0, type, 0).astype(np.uint8),
        gaps=np.zeros((n, length), np.uint8),
        at=np.full((n, 1), length - 1, np.int32),
        targets=np.array(targets, np.int32)[:, None],
        weights=np.ones((n, 1), np.float32),
        again=np.zeros((n, 1), np.bool_),
    )


def copied(state: State) -> State:
    """A state that stays as it is when its owner goes on."""
    return {name: value.copy() for name, value in state.items()}
