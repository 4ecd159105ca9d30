"""What users seem to think of it all: what they do, how long, and whether they come back.

None of this is a test of a prediction. A rating or a return has many causes, and
these figures are for watching their course over time, not for choosing between models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from headwater.config import DAY, Config
from headwater.evaluate._outcomes import TOP
from headwater.intervals import normal, wilson
from headwater.types import NO_ROW, Batch, Doubles, Flags, Floats, Ints, Metric, Metrics, State

SHARES = ("positive_share", "skip_share")
"""Means of noughts and ones, by Wilson's interval."""
MEANS = ("rating_mean", "dwell_mean", "survey_mean", "diversity@10")
_VALUES = {"rating_mean": "rating", "dwell_mean": "dwell", "survey_mean": "survey"}
_ANY = float("-inf")


class Satisfaction:
    """Proxies of users' satisfaction, over the newest ``evaluate.window`` observations of each.

    - ``positive_share``: of the events that say wanted or not wanted, those that say wanted.
    - ``skip_share``: of the same events, the skips.
    - ``rating_mean``, ``dwell_mean``, ``survey_mean``: of the values of events of that type.
    - ``return_share``: of all visits that are decided, those followed by another of the same
      user within a day of stream time. A visit ends with a pause longer than the session gap;
      it is decided when the user is back, or after a day.
    - ``diversity@10``: mean over the served lists of 1 - Jaccard similarity of the categories of
      two items (intra-list diversity, Ziegler et al., WWW 2005), over the pairs of which both
      have categories.

    Memory is bounded by the window and the number of users. Same batches in, same state out.

    Args:
        config: window and session gap.
        type_names: of the type codes.
    """

    def __init__(self, config: Config, type_names: Sequence[str]) -> None:
        self._window = config.evaluate.window
        self._pause = config.preprocess.session_gap_minutes * 60.0
        codes = {name: code for code, name in enumerate(type_names)}
        self._codes = {name: codes.get(name, -1) for name in ("rating", "dwell", "survey", "skip")}
        self._newest = {name: np.zeros(0, np.float32) for name in (*SHARES, *MEANS)}
        self._last_times = np.zeros(0, np.float64)  # per user row, 0 for none
        self._decided = np.zeros(2, np.int64)  # visits that were followed: late, within a day
        self._now = 0.0

    def observe(self, batch: Batch, values: Floats, shown: Ints, categories: Ints) -> None:
        """Counts B events, and the lists that stood beside some of them.

        Args:
            batch: B events.
            values: (B,) the value of each event, NaN where it has none.
            shown: (Q, K) item rows of the lists of those that were predicted, ``NO_ROW`` past
                the end.
            categories: (Q, K, T) rows of each item's categories, ``NO_ROW`` past the end.
        """
        judged = batch.polarities != 0
        self._add("positive_share", batch.polarities[judged] > 0)
        self._add("skip_share", batch.types[judged] == self._codes["skip"])
        for name, kind in _VALUES.items():
            self._add(name, values[(batch.types == self._codes[kind]) & np.isfinite(values)])
        diversity = list_diversity(shown[:, :TOP], categories[:, :TOP])
        self._add("diversity@10", diversity[~np.isnan(diversity)].astype(np.float32))
        named = (batch.items != NO_ROW) & (batch.contexts.users != NO_ROW)
        self._visit(batch, judged & named)

    def forget(self, users: Ints) -> None:
        """Ends the visits of users whose rows are given up: after a day they are decided."""
        known = users[users < len(self._last_times)]
        last = self._last_times[known]
        self._decided[0] += np.count_nonzero((last > 0) & (last < self._now - DAY))
        self._last_times[known] = 0.0

    def metrics(self) -> list[Metrics]:
        """One entry, segment ``satisfaction``, with every figure that has observations."""
        values: dict[str, Metric] = {}
        for name in SHARES:
            if n := len(self._newest[name]):
                values[name] = wilson(int(self._newest[name].sum()), n)
        for name in MEANS:
            found = self._newest[name].astype(np.float64)
            if n := len(found):
                low = 0.0 if name == "diversity@10" else _ANY
                values[name] = normal(float(found.sum()), float((found**2).sum()), n, low=low)
        late, returned = (int(number) for number in self._decided)
        known = self._last_times > 0
        gone = int(np.count_nonzero(known & (self._last_times < self._now - DAY)))
        if n := late + returned + gone:
            values["return_share"] = wilson(returned, n)
        return [Metrics(window="newest", segment="satisfaction", values=values)] if values else []

    def state(self) -> State:
        return {
            **{f"newest.{name}": values.copy() for name, values in self._newest.items()},
            "last_times": self._last_times.copy(),
            "decided": self._decided.copy(),
            "now": np.array(self._now),
        }

    def load(self, state: State) -> None:
        """Takes over a state; a window that was set shorter since keeps the newest of it."""
        self._newest = {
            name: state[f"newest.{name}"][-self._window :].copy() for name in self._newest
        }
        self._last_times = state["last_times"].copy()
        self._decided = state["decided"].copy()
        self._now = float(state["now"])

    def _add(self, name: str, values: Floats | Flags) -> None:
        if len(values):
            joined = np.concatenate([self._newest[name], values.astype(np.float32)])
            self._newest[name] = joined[-self._window :]

    def _visit(self, batch: Batch, seen: Flags) -> None:
        contexts = batch.contexts
        before = contexts.history_times[:, -1]
        last = contexts.history_items[:, -1]
        pauses = np.where(last != NO_ROW, contexts.times - before, 0.0)[seen]
        back = pauses[pauses > self._pause]
        within = int(np.count_nonzero(back <= DAY))
        self._decided += (len(back) - within, within)
        users, times = contexts.users[seen], contexts.times[seen]
        size = int(users.max(initial=NO_ROW)) + 1
        if size > len(self._last_times):
            self._last_times = np.pad(self._last_times, (0, size - len(self._last_times)))
        np.maximum.at(self._last_times, users, times)
        self._now = max(self._now, float(contexts.times.max(initial=0.0)))


def list_diversity(shown: Ints, categories: Ints) -> Doubles:
    """(B,) mean of 1 - Jaccard similarity over pairs of a list's items; NaN without a pair.

    >>> one = np.array([[[0, 1], [0, -1], [2, -1], [-1, -1]]], np.int32)
    >>> list_diversity(np.array([[7, 8, 9, 3]], np.int32), one).round(4).tolist()
    [0.8333]
    """
    return _diversity(shown, categories)


@njit(cache=True, nogil=True)
def _diversity(shown: Ints, categories: Ints) -> Doubles:
    lists, k, width = categories.shape
    found = np.full(lists, np.nan)
    for b in range(lists):
        total, pairs = 0.0, 0
        for i in range(k):
            if shown[b, i] < 0 or width == 0 or categories[b, i, 0] < 0:
                continue
            for j in range(i):
                if shown[b, j] < 0 or categories[b, j, 0] < 0:
                    continue
                ours, theirs, common = 0, 0, 0
                for s in range(width):
                    if categories[b, j, s] >= 0:
                        theirs += 1
                for t in range(width):
                    if categories[b, i, t] < 0:
                        break
                    ours += 1
                    for s in range(theirs):
                        if categories[b, i, t] == categories[b, j, s]:
                            common += 1
                total += 1.0 - common / (ours + theirs - common)
                pairs += 1
        if pairs > 0:
            found[b] = total / pairs
    return found
