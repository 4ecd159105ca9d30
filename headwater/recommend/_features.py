"""What the mixture sees of a candidate: the experts' words, the item, the request.

Every feature is a function of the state before the event that it predicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from headwater.config import Config
from headwater.model import EVIDENCE, EXPERTS, LIFTS, FirstLists, Mixture, Model
from headwater.recommend._candidates import Candidates
from headwater.types import Contexts, Doubles, Floats, Ints, Longs

_FLOOR = -12.0
"""Log share of an item that an expert knows nothing of."""

_LEAST = float(np.exp(_FLOOR))

_SILENT = _FLOOR / 4.0 + 1.5

_POPULARITY, _CONTENT, _SEQUENCE = map(EXPERTS.index, ("popularity", "content", "sequence"))

_HISTORY_BUCKETS = (1, 5, 20)


class Features:
    """The layout of the mixture's input, and how to fill it.

    Columns, in order: for each expert, log share and reciprocal place; the log
    share at each half-life; the score of the content expert as it is and what it is made
    of, for a share doesn't tell a sequel from what merely is of one genre; log count, age
    and time since the last event of the item, and how usual it is behind a history that long
    and after such a pause; history length, its bucket, session length and time since the last
    event of the request.
    """

    def __init__(self, config: Config) -> None:
        self.half_lives = len(config.popularity.half_lives_hours)
        names: list[str] = []
        for expert in EXPERTS:
            names += [f"{expert}.log_share", f"{expert}.reciprocal_place"]
        names += [f"popularity.log_share.{h:g}h" for h in config.popularity.half_lives_hours]
        names += [f"content.{name}" for name in EVIDENCE]
        names += ["item.log_events", "item.log_age", "item.log_idle"]
        names += [f"item.{name}" for name in LIFTS]
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
        """(B, C, F) features of the candidates; those past the end of a list are 0."""
        rows = candidates.rows
        out = np.zeros((*rows.shape, len(self)), np.float32)
        popularity = model.popularity
        values = np.empty((len(EXPERTS), *rows.shape), np.float32)
        for expert, opinion in candidates.opinions.items():
            if expert != model.content.name:
                values[EXPERTS.index(expert)] = opinion.scores(rows)
        evidence = model.content.weigh(contexts).evidence(rows)
        values[_CONTENT] = evidence[..., 0]
        values[_SEQUENCE] = model.sequence.scores(candidates.users, rows)
        _fill(
            rows,
            values,
            candidates.list_scores,
            candidates.places,
            evidence,
            popularity.counts,
            popularity.totals,
            popularity.mix.astype(np.float32),
            popularity.events,
            popularity.first_times,
            popularity.last_times,
            model.occasions.lifts(contexts, rows),
            contexts.times,
            contexts.history_items,
            contexts.history_times,
            contexts.history_lengths,
            contexts.session_lengths,
            out,
        )
        return out


@njit(cache=True, nogil=True)
def _fill(
    rows: Ints,
    values: Floats,
    list_scores: Floats,
    places: Ints,
    evidence: Floats,
    counts: Doubles,
    totals: Doubles,
    mix: Floats,
    events: Longs,
    first_times: Doubles,
    last_times: Doubles,
    lifts: Floats,
    now: Doubles,
    history_items: Ints,
    history_times: Doubles,
    lengths: Longs,
    session_lengths: Ints,
    out: Floats,
) -> None:
    """Writes every feature of every candidate, in the order of ``Features``.

    Args:
        values: (E, B, C) what each expert scores a candidate; of popularity nothing yet.
        list_scores: (E, B, K) and each item of its own list.
        places: (E, B, C).
        evidence: (B, C, 4) of the content expert.
        counts, totals: (N, H) and (H,) of popularity at each half-life; the totals above 0.
        mix: (H,).
        lifts: (B, C, 2) of the occasion.
        history_items, history_times: (B, L), the newest event last.
    """
    experts, batch, n = values.shape
    wholes = np.empty(experts, np.float32)
    request = np.empty(3 + len(_HISTORY_BUCKETS) + 1, np.float32)
    shares = np.empty(len(mix), np.float32)
    for b in range(batch):
        for e in range(experts):
            of_list = list_scores[e, b]
            wholes[e] = _log_sum(of_list) if e == _SEQUENCE else max(_sum(of_list), 1e-9)
        pause = now[b] - history_times[b, -1] if history_items[b, -1] >= 0 else 1e8
        request[0] = np.log1p(lengths[b]) / 3.0 - 1.0
        request[1] = np.log1p(session_lengths[b]) / 2.0
        request[2] = np.log1p(max(pause, 0.0)) / 6.0 - 1.5
        request[3:] = 0.0
        bucket = 0
        for least in _HISTORY_BUCKETS:
            bucket += lengths[b] >= least
        request[3 + bucket] = 1.0
        for c in range(n):
            row = rows[b, c]
            if row < 0:
                break
            for h in range(len(mix)):
                shares[h] = counts[row, h] / totals[h]
            column = 0
            for e in range(experts):
                value = values[e, b, c]
                if e == _POPULARITY:
                    value = np.float32(0)
                    for h in range(len(mix)):
                        value += shares[h] * mix[h]
                if e == _SEQUENCE:
                    log_share = float(min(value - wholes[e], 0.0))
                else:
                    log_share = _log_share(value if e == _POPULARITY else value / wholes[e])
                out[b, c, column] = _scaled(min(max(log_share, _FLOOR), 0.0))
                place = places[e, b, c]
                out[b, c, column + 1] = 1.0 / (1.0 + place) if place >= 0 else 0.0
                column += 2
            for h in range(len(mix)):
                out[b, c, column] = _scaled(_log_share(shares[h]))
                column += 1
            for k in range(evidence.shape[2]):
                out[b, c, column] = evidence[b, c, k]
                column += 1
            out[b, c, column] = _log(1.0 + events[row]) / 4.0 - 1.0
            out[b, c, column + 1] = _log_time(now[b] - first_times[row])
            out[b, c, column + 2] = _log_time(now[b] - last_times[row])
            column += 3
            for k in range(lifts.shape[2]):
                out[b, c, column] = lifts[b, c, k]
                column += 1
            for r in range(len(request)):
                out[b, c, column + r] = request[r]


@njit(cache=True, nogil=True)
def _log(value: float) -> Any:
    """In single precision, which takes a third of the time, and there are a dozen a candidate."""
    return np.log(np.float32(value))


@njit(cache=True, nogil=True)
def _log_share(share: float) -> float:
    if share <= _LEAST:  # as most of them are
        return _FLOOR
    return float(max(_log(share), np.float32(_FLOOR)))


@njit(cache=True, nogil=True)
def _scaled(log_share: float) -> float:
    return log_share / 4.0 + 1.5


@njit(cache=True, nogil=True)
def _log_time(seconds: float) -> float:
    return float(_log(1.0 + max(seconds, 0.0)) / 6.0 - 1.5)


@njit(cache=True, nogil=True)
def _sum(scores: Floats) -> float:
    total = np.float32(0)
    for k in range(len(scores)):
        total += scores[k]
    return float(total)


@njit(cache=True, nogil=True)
def _log_sum(scores: Floats) -> float:
    """The log of the sum of exp over a list."""
    top = -1e9
    for k in range(len(scores)):
        top = max(top, float(scores[k]))
    total = 1e-9
    for k in range(len(scores)):
        total += np.exp(scores[k] - top)
    return float(top + np.log(total))
