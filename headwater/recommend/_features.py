"""What the mixture sees of a candidate: the experts' words, the item, the request.

Every feature is a function of the state before the event that it predicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headwater.config import Config
from headwater.model import EXPERTS, FirstLists, Mixture, Model
from headwater.recommend._candidates import Candidates
from headwater.types import NO_ROW, Contexts, Floats

_FLOOR = -12.0
"""Log share of an item that an expert knows nothing of."""

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
                    silence[column] = _scaled(_FLOOR)
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
        mixed = shares @ popularity.mix.astype(np.float32)
        column = 0
        for expert in EXPERTS:
            if expert == "popularity":
                log_share = _log_share(mixed)
            elif expert != "sequence":
                scores = candidates.opinions[expert].scores(rows)
                if expert == "content":
                    likeness = scores
                total = candidates.list_scores[expert].sum(axis=1, keepdims=True)
                log_share = _log_share(scores / np.maximum(total, 1e-9))
            else:
                scores = model.sequence.scores(candidates.users, rows)
                log_share = scores - _log_sum(candidates.list_scores[expert])
            place = candidates.places[expert]
            out[:, :, column] = _scaled(np.clip(log_share, _FLOOR, 0.0))
            out[:, :, column + 1] = np.where(place >= 0, 1.0 / (1.0 + np.maximum(place, 0)), 0.0)
            column += 2
        out[:, :, column : column + self.half_lives] = _scaled(_log_share(shares))
        column += self.half_lives
        out[:, :, column] = likeness
        column += 1
        now = contexts.times[:, None]
        out[:, :, column] = np.log1p(popularity.events[rows]) / 4.0 - 1.0
        out[:, :, column + 1] = _log_time(now - popularity.first_times[rows])
        out[:, :, column + 2] = _log_time(now - popularity.last_times[rows])
        column += 3
        lengths = contexts.history_lengths
        last = contexts.history_items[:, -1]
        pause = np.where(last != NO_ROW, contexts.times - contexts.history_times[:, -1], 1e8)
        request = np.stack(
            [
                np.log1p(lengths) / 3.0 - 1.0,
                np.log1p(contexts.session_lengths) / 2.0,
                _log_time(pause),
            ],
            axis=1,
        )
        out[:, :, column : column + 3] = request[:, None, :]
        column += 3
        bucket = np.searchsorted(_HISTORY_BUCKETS, lengths, side="right")
        out[:, :, column:] = np.eye(len(_HISTORY_BUCKETS) + 1, dtype=np.float32)[bucket][:, None, :]
        return out


def _log_share(shares: Floats) -> Floats:
    return np.maximum(np.log(np.maximum(shares, 1e-12)), _FLOOR)


def _scaled(log_share: np.ndarray | float) -> Any:
    return log_share / 4.0 + 1.5


def _log_time(seconds: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = np.log1p(np.maximum(seconds, 0.0)) / 6.0 - 1.5
    return scaled


def _log_sum(scores: Floats) -> Floats:
    """(B, 1) log of the sum of exp over each list."""
    top = np.max(scores, axis=1, keepdims=True, initial=-1e9)
    total: Floats = top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True) + 1e-9)
    return total
