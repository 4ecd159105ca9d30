"""What the mixture sees of a candidate: the experts' words, the item, the request.

Every feature is a function of the state before the event that it predicts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from headwater.config import Config
from headwater.model import EXPERTS, FirstLists, Mixture, Model
from headwater.recommend._candidates import Candidates
from headwater.types import NO_ROW, Contexts, Doubles, Floats, Ints, Longs

_FLOOR = -12.0
"""Log share of an item that an expert knows nothing of."""

_SILENT = _FLOOR / 4.0 + 1.5

_HISTORY_BUCKETS = (1, 5, 20)


class Features:
    """The layout of the mixture's input, and how to fill it.

    Columns, in order: for each expert, log share and reciprocal place; the log
    share at each half-life; the score of the content expert as it is, for a share
    doesn't tell a sequel from what merely is of one genre; log count, age and time
    since the last event of the item; history length, its bucket, session length and
    time since the last event of the request.
    """

    def __init__(self, config: Config) -> None:
        self.half_lives = len(config.popularity.half_lives_hours)
        names: list[str] = []
        for expert in EXPERTS:
            names += [f"{expert}.log_share", f"{expert}.reciprocal_place"]
        names += [f"popularity.log_share.{h:g}h" for h in config.popularity.half_lives_hours]
        names += ["content.likeness"]
        names += ["item.log_events", "item.log_age", "item.log_idle"]
        names += ["request.log_history", "request.log_session", "request.log_pause"]
        names += [f"request.history.{bucket}" for bucket in range(len(_HISTORY_BUCKETS) + 1)]
        self.names = tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    def mixture(self, config: Config) -> Mixture:
        """An untrained mixture over these features: a product of the experts' shares."""
        linear = np.zeros(len(self), np.float32)
        silence = np.zeros(len(self), np.float32)
        groups: dict[str, list[int]] = {expert: [] for expert in EXPERTS}
        for column, name in enumerate(self.names):
            owner, what = name.split(".", 1)
            if owner in groups:
                groups[owner].append(column)
                if what.startswith("log_share"):
                    silence[column] = _SILENT
                if what == "log_share" and owner in ("popularity", "transitions"):
                    linear[column] = 1.0
                if what == "reciprocal_place":
                    linear[column] = 0.5
        return Mixture(
            config.mixture,
            linear,
            FirstLists(
                flag=self.names.index("request.history.0"),
                popularity=self.names.index("popularity.log_share"),
            ),
            {name: np.array(columns, np.int32) for name, columns in groups.items()},
            silence,
            config.seed,
        )

    def fill(self, model: Model, contexts: Contexts, candidates: Candidates) -> Floats:
        """(B, C, F) features of the candidates; those past the end of a list mean nothing."""
        rows = np.maximum(candidates.rows, 0)
        batch, n = rows.shape
        out = np.empty((batch, n, len(self)), np.float32)
        popularity = model.popularity
        shares = popularity.shares(rows)
        values = np.empty((len(EXPERTS), batch, n), np.float32)  # shares, of "sequence" their logs
        for number, expert in enumerate(EXPERTS):
            if expert == "popularity":
                values[number] = shares @ popularity.mix.astype(np.float32)
            elif expert != "sequence":
                values[number] = candidates.opinions[expert].scores(rows)
                if expert == "content":
                    likeness = values[number].copy()
                total = candidates.list_scores[expert].sum(axis=1, keepdims=True)
                values[number] /= np.maximum(total, 1e-9)
            else:
                values[number] = model.sequence.scores(candidates.users, rows)
                values[number] -= _log_sum(candidates.list_scores[expert])
        lengths = contexts.history_lengths
        last = contexts.history_items[:, -1]
        pause = np.where(last != NO_ROW, contexts.times - contexts.history_times[:, -1], 1e8)
        bucket = np.searchsorted(_HISTORY_BUCKETS, lengths, side="right")
        request = np.concatenate(
            [
                np.stack(
                    [
                        np.log1p(lengths) / 3.0 - 1.0,
                        np.log1p(contexts.session_lengths) / 2.0,
                        np.log1p(np.maximum(pause, 0.0)) / 6.0 - 1.5,
                    ],
                    axis=1,
                ),
                np.eye(len(_HISTORY_BUCKETS) + 1)[bucket],
            ],
            axis=1,
        )
        _fill(
            rows,
            values,
            EXPERTS.index("sequence"),
            np.stack([candidates.places[expert] for expert in EXPERTS]),
            shares,
            likeness,
            popularity.events,
            popularity.first_times,
            popularity.last_times,
            contexts.times,
            request.astype(np.float32),
            out,
        )
        return out


@njit(cache=True, nogil=True)
def _fill(
    rows: Ints,
    values: Floats,
    in_logs: int,
    places: Ints,
    shares: Floats,
    likeness: Floats,
    events: Longs,
    first_times: Doubles,
    last_times: Doubles,
    now: Doubles,
    request: Floats,
    out: Floats,
) -> None:
    """Writes every feature of every candidate, in the order of ``Features``.

    Args:
        values: (E, B, C) shares of the experts, but logarithms of them for expert ``in_logs``.
        places: (E, B, C).
        shares: (B, C, H) at each half-life.
        request: (B, R) the last R columns.
    """
    batch, n = rows.shape
    for b in range(batch):
        for c in range(n):
            row = rows[b, c]
            column = 0
            for e in range(len(values)):
                value = values[e, b, c]
                log_share = float(min(value, 0.0)) if e == in_logs else _log_share(value)
                out[b, c, column] = _scaled(min(max(log_share, _FLOOR), 0.0))
                place = places[e, b, c]
                out[b, c, column + 1] = 1.0 / (1.0 + place) if place >= 0 else 0.0
                column += 2
            for h in range(shares.shape[2]):
                out[b, c, column] = _scaled(_log_share(shares[b, c, h]))
                column += 1
            out[b, c, column] = likeness[b, c]
            out[b, c, column + 1] = np.log1p(events[row]) / 4.0 - 1.0
            out[b, c, column + 2] = _log_time(now[b] - first_times[row])
            out[b, c, column + 3] = _log_time(now[b] - last_times[row])
            column += 4
            for r in range(request.shape[1]):
                out[b, c, column + r] = request[b, r]


@njit(cache=True, nogil=True)
def _log_share(share: float) -> float:
    return float(np.float32(max(np.log(np.float32(max(share, 1e-12))), _FLOOR)))


@njit(cache=True, nogil=True)
def _scaled(log_share: float) -> float:
    return log_share / 4.0 + 1.5


@njit(cache=True, nogil=True)
def _log_time(seconds: float) -> float:
    return float(np.log1p(max(seconds, 0.0)) / 6.0 - 1.5)


def _log_sum(scores: Floats) -> Floats:
    """(B, 1) log of the sum of exp over each list."""
    top = np.max(scores, axis=1, keepdims=True, initial=-1e9)
    total: Floats = top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True) + 1e-9)
    return total
