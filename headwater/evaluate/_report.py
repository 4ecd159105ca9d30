"""The outcomes of a whole replay, as figures, as a table and as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.evaluate._calibration import BINS, EDGES, calibration_error, reliability
from headwater.evaluate._metrics import (
    HISTORY_BUCKETS,
    ITEM_AGE_BUCKETS,
    RANK_BINS,
    RANK_METRICS,
    finite_moments,
    from_histogram,
    history_buckets,
    item_age_buckets,
    ndcg_gains,
    rank_bins,
    rank_histograms,
)
from headwater.evaluate._outcomes import MIXTURE, TOP, Outcomes
from headwater.evaluate._plot import draw
from headwater.types import Doubles, Floats, Longs

if TYPE_CHECKING:
    import polars as pl

_SEGMENTS = {"history": HISTORY_BUCKETS, "item_age": ITEM_AGE_BUCKETS}
_SEGMENT_METRICS = ("ndcg@10", "hit_rate@10")


class _Kept(NamedTuple):
    """What is kept of each target; an int8 holds every rank of a served list."""

    ranks: NDArray[np.int8]  # (n, M)
    history_lengths: Longs  # (n,)
    item_events_before: Longs  # (n,)
    novelty: Floats  # (n, M)

    def since(self, start: int) -> _Kept:
        return _Kept(
            self.ranks[start:],
            self.history_lengths[start:],
            self.item_events_before[start:],
            self.novelty[start:],
        )


class Report:
    """Collects the outcomes of a replay, target by target in log order.

    Positions are those of targets: 0 is the first prediction of the stream.
    """

    def __init__(self, experts: Sequence[str]) -> None:
        self.models = (MIXTURE, *experts)
        self._kept: list[_Kept] = []
        self._n = 0
        self._reliability: list[tuple[int, Doubles]] = []  # first target of a batch, its sums
        # The last target whose top ten held the item tells, for every part of the stream that
        # reaches its end, which items were shown in it; the lists themselves aren't kept.
        self._last_shown = np.full((len(self.models), 0), -1, np.int64)

    def __len__(self) -> int:
        return self._n

    def add(self, outcomes: Outcomes) -> None:
        """Appends the outcomes of the next batch."""
        if not len(outcomes):
            return
        rows = int(outcomes.tops.max()) + 1
        if rows > self._last_shown.shape[1]:
            size = max(rows, 2 * self._last_shown.shape[1])
            room = ((0, 0), (0, size - self._last_shown.shape[1]))
            self._last_shown = np.pad(self._last_shown, room, constant_values=-1)
        positions = np.repeat(np.arange(self._n, self._n + len(outcomes)), TOP)
        for model in range(len(self.models)):
            tops = outcomes.tops[:, model].reshape(-1)
            shown = tops >= 0
            # Positions ascend, and of several assignments to one place the last one stays.
            self._last_shown[model, tops[shown]] = positions[shown]
        self._reliability.append((self._n, reliability(outcomes)))
        self._kept.append(
            _Kept(
                outcomes.ranks.astype(np.int8),
                outcomes.history_lengths,
                outcomes.item_events_before,
                outcomes.novelty.astype(np.float32),
            )
        )
        self._n += len(outcomes)

    def results(self, eligible: int, second_half_from: int | None = None) -> dict[str, Any]:
        """The figures of ``headwater replay --json``: parts ``all`` to ``calibration``.

        Args:
            eligible: items that could be recommended at the end of the stream.
            second_half_from: position where the second half starts; by default half of all.

        Returns:
            ``all`` and ``second_half`` of the mixture; ``experts`` and ``segments`` of the second
            half, and ``calibration`` of the batches that begin in it. A figure of no predictions
            is ``None``.
        """
        start = (self._n + 1) // 2 if second_half_from is None else second_half_from
        kept = self._joined()
        half = kept.since(start)
        figures = [self._figures(half, model, start, eligible) for model in range(len(self.models))]
        return {
            "all": self._figures(kept, 0, 0, eligible),
            "second_half": figures[0],
            "experts": dict(zip(self.models[1:], figures[1:], strict=True)),
            "segments": self._segments(half),
            "calibration": self._calibration(start),
        }

    def ranks_table(
        self, index: Sequence[int] | Longs, user_ids: Sequence[str], item_ids: Sequence[str]
    ) -> pl.DataFrame:
        """The table of ``headwater replay --ranks``: a line per target, in log order.

        Args:
            index: the target's 0-based row in the file as it was read.
            user_ids: the target's user.
            item_ids: the target's item.

        Raises:
            ValueError: an argument hasn't one entry per target.
        """
        import polars as pl

        for name, given in (("index", index), ("user_ids", user_ids), ("item_ids", item_ids)):
            if len(given) != self._n:
                raise ValueError(f"{name} has {len(given)} entries for {self._n} targets")
        kept = self._joined()
        columns = ["rank", *(f"rank_{name}" for name in self.models[1:])]
        table = pl.DataFrame(
            {
                "index": pl.Series(index, dtype=pl.Int64),
                "user_id": pl.Series(user_ids, dtype=pl.String),
                "item_id": pl.Series(item_ids, dtype=pl.String),
                "history_length": kept.history_lengths,
                "item_events_before": kept.item_events_before,
                **{name: kept.ranks[:, model] for model, name in enumerate(columns)},
            }
        )
        return table.with_columns(
            pl.when(pl.col(name) >= 0).then(pl.col(name)).alias(name) for name in columns
        )

    def plot(self, path: Path) -> None:
        """Draws NDCG@10 over the stream, a line per model; PNG or SVG by the name's ending.

        Raises:
            ConfigError: matplotlib isn't installed, or the ending is another.
        """
        ranks = self._joined().ranks
        gains = ndcg_gains(ranks, 10)
        draw(path, {name: gains[:, model] for model, name in enumerate(self.models)})

    def _joined(self) -> _Kept:
        none = _Kept(
            np.zeros((0, len(self.models)), np.int8),
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros((0, len(self.models)), np.float32),
        )
        return _Kept(*map(np.concatenate, zip(none, *self._kept, strict=True)))

    def _figures(self, kept: _Kept, model: int, start: int, eligible: int) -> dict[str, Any]:
        n = len(kept.ranks)
        shown = int(np.count_nonzero(self._last_shown[model] >= start))
        total, _, lists = finite_moments(kept.novelty[:, model].astype(np.float64))
        return {
            "n": n,
            **_values(np.bincount(rank_bins(kept.ranks[:, model]), minlength=RANK_BINS)),
            "coverage@10": shown / eligible if n and eligible else None,
            "novelty@10": total / lists if lists else None,
        }

    def _calibration(self, start: int) -> dict[str, Any]:
        """The mixture's expected calibration error at 10, and its reliability by bins."""
        sums = sum((of for first, of in self._reliability if first >= start), np.zeros((BINS, 3)))
        edges = (0.0, *EDGES.tolist(), 1.0)
        error = calibration_error(sums)
        return {
            "n": error.n,
            "ece@10": error.value if error.n else None,
            "low": error.low if error.n else None,
            "high": error.high if error.n else None,
            "bins": [
                {
                    "above": above,
                    "below": below,
                    "n": int(items),
                    "predicted": float(probabilities / items),
                    "observed": float(came / items),
                }
                for above, below, (items, probabilities, came) in zip(
                    edges[:-1], edges[1:], sums, strict=True
                )
                if items
            ],
        }

    def _segments(self, kept: _Kept) -> dict[str, Any]:
        histograms = rank_histograms(
            rank_bins(kept.ranks),
            history_buckets(kept.history_lengths),
            item_age_buckets(kept.item_events_before),
        )
        segments: dict[str, Any] = {}
        place = 1
        for kind, buckets in _SEGMENTS.items():
            segments[kind] = {}
            for bucket in buckets:
                figures = [
                    {name: _values(counts)[name] for name in _SEGMENT_METRICS}
                    for counts in histograms[place]
                ]
                segments[kind][bucket] = {
                    "n": int(histograms[place, 0].sum()),
                    **figures[0],
                    "experts": dict(zip(self.models[1:], figures[1:], strict=True)),
                }
                place += 1
        return segments


def _values(counts: NDArray[Any]) -> dict[str, float | None]:
    if not counts.any():
        return dict.fromkeys(RANK_METRICS)
    return {name: metric.value for name, metric in from_histogram(counts).items()}
