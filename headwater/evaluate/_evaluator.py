"""Running metrics of a live system: the newest predictions, and all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from headwater.config import Config
from headwater.errors import Unfit
from headwater.evaluate._calibration import BINS, EDGES, calibration_error, reliability
from headwater.evaluate._metrics import (
    RANK_BINS,
    SEGMENTS,
    finite_moments,
    from_histogram,
    gini,
    rank_bins,
    rank_histograms,
)
from headwater.evaluate._outcomes import MIXTURE, TOP, Outcomes, compare
from headwater.intervals import normal, wilson
from headwater.packing import pack_strings, unpack_strings
from headwater.types import NO_ROW, Batch, Ints, Longs, Metric, Metrics, Ranking, State

_Array = TypeVar("_Array", bound=NDArray[Any])


class Evaluator:
    """Test-then-train metrics of the mixture and of each expert, by segment.

    Memory is bounded by ``evaluate.window`` and by the number of items, never
    by traffic. Same batches in, same state out, bit for bit.
    """

    def __init__(self, config: Config, experts: Sequence[str]) -> None:
        self.models = (MIXTURE, *experts)
        self.experts = tuple(experts)
        self._window = config.evaluate.window
        models = len(self.models)
        self._seen = 0
        self._filled = 0
        self._eligible = 0
        # A ring of the newest predictions: prediction number p is at p % window.
        self._bins = np.zeros((self._window, models), np.uint8)
        self._history = np.zeros(self._window, np.uint8)
        self._item_age = np.zeros(self._window, np.uint8)
        self._tops = np.zeros((self._window, models, TOP), np.int32)
        self._novelty = np.zeros((self._window, models), np.float64)
        self._newest_counts = np.zeros((len(SEGMENTS), models, RANK_BINS), np.int64)
        # The whole past, as sums.
        self._all_counts = np.zeros_like(self._newest_counts)
        self._all_novelty = np.zeros((models, 3), np.float64)  # sum, sum of squares, n
        self._reliability = np.zeros((BINS, 3))  # older predictions count less and less
        self._shown = np.zeros((models, 0), np.bool_)  # item rows that were in a top ten
        self._newest_shown = np.zeros((models, 0), np.int32)  # top tens of the ring per item row

    def observe(
        self,
        batch: Batch,
        ranking: Ranking,
        item_counts: Longs,
        total_events: int,
        eligible: int | None = None,
    ) -> Outcomes:
        """Tests B lists on what then happened, and counts the outcome.

        Args:
            batch: B events.
            ranking: a list for each, made before its event was learned from.
            item_counts: (N,) events per item so far.
            total_events: events of all items so far.
            eligible: items that had any; counted where it isn't given.

        Raises:
            ValueError: batch and lists differ in number.
        """
        outcomes = compare(self.experts, batch, ranking, item_counts, total_events)
        self._eligible = int(np.count_nonzero(item_counts)) if eligible is None else eligible
        if len(outcomes):
            self._add_to_all(outcomes)
            self._reliability *= np.exp(-len(outcomes) / self._window)
            self._reliability += reliability(outcomes)
            self._add_to_newest(outcomes)
        return outcomes

    def forget(self, items: Ints) -> None:
        """Takes item rows out of what was shown: they may stand for other items from now on."""
        size = max(self._shown.shape[1], int(self._tops.max()) + 1, int(items.max()) + 1)
        gone = np.zeros(size + 1, np.bool_)  # the last one is that of NO_ROW
        gone[items] = True
        self._tops[gone[self._tops]] = NO_ROW
        for shown in (self._shown, self._newest_shown):
            shown[:, gone[: shown.shape[1]]] = 0

    def metrics(self, window: Literal["newest", "all"] = "newest") -> list[Metrics]:
        """One entry per segment that has predictions, ``all`` first.

        Values are named ``<model>.<metric>``, as in ``mixture.ndcg@10``. Segment
        ``all`` has ``coverage@10`` and ``novelty@10`` too, and of the newest lists
        ``gini@10``, how unevenly they show the eligible items; it and coverage are of
        exact counts, so their intervals have no width.
        """
        counts = self._newest_counts if window == "newest" else self._all_counts
        found = []
        for segment, name in enumerate(SEGMENTS):
            if not counts[segment, 0].any():
                continue
            values: dict[str, Metric] = {}
            for model, model_name in enumerate(self.models):
                for metric, value in from_histogram(counts[segment, model]).items():
                    values[f"{model_name}.{metric}"] = value
            if name == "all":
                values.update(self._list_metrics(window))
            found.append(Metrics(window=window, segment=name, values=values))
        return found

    def calibration(self) -> list[Metrics]:
        """One entry, segment ``calibration``, of about the newest ``evaluate.window`` lists.

        ``mixture.ece@10`` is the expected calibration error of the items of the top tens, and
        ``mixture.observed@10.above_0.1`` and the like the share that came next of those given a
        probability from there to the next such edge, ``…predicted…`` their mean probability.
        """
        if self._reliability[:, 0].sum() < 1.0:
            return []
        values = {f"{MIXTURE}.ece@10": calibration_error(self._reliability)}
        for (items, probabilities, came), edge in zip(
            self._reliability, (0.0, *EDGES.tolist()), strict=True
        ):
            if n := round(items):
                predicted = float(probabilities / items)
                above = f"@10.above_{edge:g}"
                values[f"{MIXTURE}.observed{above}"] = wilson(round(came), n)
                values[f"{MIXTURE}.predicted{above}"] = Metric(predicted, predicted, predicted, n)
        return [Metrics(window="newest", segment="calibration", values=values)]

    def state(self) -> State:
        """What is remembered, in an order that doesn't depend on where the ring stands."""
        text, offsets = pack_strings(self.models)
        order = self._places(self._seen - self._filled, self._seen)
        used = np.flatnonzero(self._shown.any(axis=0))
        return {
            "models": text,
            "models_offsets": offsets,
            "seen": np.array([self._seen, self._eligible], np.int64),
            "bins": self._bins[order],
            "history": self._history[order],
            "item_age": self._item_age[order],
            "tops": self._tops[order],
            "novelty": self._novelty[order],
            "all_counts": self._all_counts.copy(),
            "all_novelty": self._all_novelty.copy(),
            "reliability": self._reliability.copy(),
            "shown": self._shown[:, : used[-1] + 1 if len(used) else 0].copy(),
        }

    def load(self, state: State) -> None:
        """Takes over a state; a window that was set shorter since keeps the newest of it.

        Raises:
            Unfit: the state is of other experts.
        """
        models = tuple(unpack_strings(state["models"], state["models_offsets"]))
        if models != self.models:
            raise Unfit(
                f"the metrics are of {', '.join(models)}, not of {', '.join(self.models)}; "
                "learn again from the events log"
            )
        self._seen, self._eligible = (int(number) for number in state["seen"])
        held = len(state["bins"])
        self._filled = min(held, self._window)
        places = self._places(self._seen - self._filled, self._seen)
        newest = slice(held - self._filled, None)
        self._bins[places] = state["bins"][newest]
        self._history[places] = state["history"][newest]
        self._item_age[places] = state["item_age"][newest]
        self._tops[places] = state["tops"][newest]
        self._novelty[places] = state["novelty"][newest]
        self._newest_counts = self._histograms(places)
        self._newest_shown = np.zeros((len(self.models), 0), np.int32)
        self._count_shown(self._tops[places], 1)
        self._all_counts = state["all_counts"].copy()
        self._all_novelty = state["all_novelty"].copy()
        self._reliability = state["reliability"].copy()
        self._shown = state["shown"].copy()

    def _add_to_all(self, outcomes: Outcomes) -> None:
        self._all_counts += rank_histograms(
            rank_bins(outcomes.ranks), outcomes.history, outcomes.item_age
        )
        self._shown = _widened(self._shown, int(outcomes.tops.max()) + 1)
        for model in range(len(self.models)):
            tops = outcomes.tops[:, model]
            self._shown[model, tops[tops >= 0]] = True
            self._all_novelty[model] += finite_moments(outcomes.novelty[:, model])

    def _add_to_newest(self, outcomes: Outcomes) -> None:
        end = self._seen + len(outcomes)
        oldest = self._seen - self._filled
        kept = min(self._seen, max(oldest, end - self._window))
        leaving = self._places(oldest, kept)
        self._newest_counts -= self._histograms(leaving)
        self._count_shown(self._tops[leaving], -1)
        added = min(len(outcomes), self._window)
        places = self._places(end - added, end)
        self._bins[places] = rank_bins(outcomes.ranks[-added:])
        self._history[places] = outcomes.history[-added:]
        self._item_age[places] = outcomes.item_age[-added:]
        self._tops[places] = outcomes.tops[-added:]
        self._count_shown(self._tops[places], 1)
        self._novelty[places] = outcomes.novelty[-added:]
        self._newest_counts += self._histograms(places)
        self._seen = end
        self._filled = min(self._filled + added, self._window)

    def _places(self, start: int, stop: int) -> Longs:
        return np.arange(start, stop) % self._window

    def _count_shown(self, tops: Ints, change: int) -> None:
        """Counts top tens (n, models, TOP) that have come into the ring, or left it."""
        self._newest_shown = _widened(self._newest_shown, int(tops.max(initial=NO_ROW)) + 1)
        of_model = np.broadcast_to(np.arange(len(self.models))[:, None], tops.shape)
        listed = tops != NO_ROW
        np.add.at(self._newest_shown, (of_model[listed], tops[listed]), change)

    def _histograms(self, places: Longs) -> Longs:
        return rank_histograms(self._bins[places], self._history[places], self._item_age[places])

    def _list_metrics(self, window: Literal["newest", "all"]) -> dict[str, Metric]:
        values: dict[str, Metric] = {}
        newest = self._places(self._seen - self._filled, self._seen)
        for model, name in enumerate(self.models):
            if window == "newest":
                counts = self._newest_shown[model]
                shown = int(np.count_nonzero(counts))
                moments = finite_moments(self._novelty[newest, model])
            else:
                shown = int(np.count_nonzero(self._shown[model]))
                total, squares, lists = self._all_novelty[model]
                moments = float(total), float(squares), int(lists)
            # Items that no event has named can be shown as well, where they have content.
            eligible = max(shown, self._eligible)
            if eligible:
                coverage = shown / eligible
                values[f"{name}.coverage@10"] = Metric(coverage, coverage, coverage, eligible)
            if eligible and window == "newest":
                # Items that were shown are among the eligible ones; the others count as nought.
                unequal = gini(counts[counts > 0], eligible - shown)
                values[f"{name}.gini@10"] = Metric(unequal, unequal, unequal, eligible)
            if moments[2]:
                values[f"{name}.novelty@10"] = normal(*moments)
        return values


def _widened(by_item: _Array, items: int) -> _Array:
    """(models, N) with room for item rows up to ``items``."""
    if items <= by_item.shape[1]:
        return by_item
    # Doubled, so that a growing catalogue doesn't cost a copy per batch.
    size = max(items, 2 * by_item.shape[1])
    return np.pad(by_item, ((0, 0), (0, size - by_item.shape[1])))  # type: ignore[return-value]
