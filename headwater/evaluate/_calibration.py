"""Whether the mixture is as sure as it is right.

The softmax of a served list's scores, by which the mixture is trained, gives each item of it a
probability of being the next one, given that the list holds it: of lists that don't, nothing
is asked here. Items of the top tens are put into bins by that probability; in a calibrated model
the share of those that came next is their mean probability (a reliability diagram), and the
expected calibration error

    ECE = Σ_b n_b / n · |observed_b - predicted_b|

is 0 (Naeini, Cooper and Hauskrecht, AAAI 2015). Most items of a list have small probabilities,
so the bins are narrower there.
"""

from __future__ import annotations

import numpy as np

from headwater.evaluate._outcomes import Outcomes
from headwater.intervals import wilson
from headwater.types import Doubles, Metric

EDGES = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7])
"""Between the bins, which begin at 0 and end at 1."""
BINS = len(EDGES) + 1


def reliability(outcomes: Outcomes) -> Doubles:
    """(BINS, 3) sums over the items of the top tens: items, probabilities, items that came next."""
    shown = ~np.isnan(outcomes.confidence) & (outcomes.ranks[:, :1] >= 0)
    probabilities = outcomes.confidence[shown].astype(np.float64)
    places = np.arange(outcomes.confidence.shape[1])
    came = (outcomes.ranks[:, :1] == places)[shown]
    bins = np.searchsorted(EDGES, probabilities, side="right")
    columns = (None, probabilities, came.astype(np.float64))
    return np.stack([np.bincount(bins, column, BINS) for column in columns], axis=1)


def calibration_error(sums: Doubles) -> Metric:
    """The ECE of (BINS, 3) sums, n the items.

    Its interval is that of Wilson's of every bin taken together, which is wider than 95 %.
    """
    n = sums[:, 0].sum()
    value = low = high = 0.0
    for items, probabilities, came in sums[sums[:, 0] >= 1.0]:
        predicted, observed = probabilities / items, wilson(round(came), max(round(items), 1))
        value += items / n * abs(came / items - predicted)
        low += items / n * max(observed.low - predicted, predicted - observed.high, 0.0)
        high += items / n * max(observed.high - predicted, predicted - observed.low)
    return Metric(float(value), float(low), float(high), round(n))
