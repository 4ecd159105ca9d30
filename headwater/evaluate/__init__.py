"""Stage 4, evaluate: every prediction is tested on what then happened, before it is learned.

``Evaluator`` keeps the running metrics of a live system, by segment and in
bounded memory, ``Satisfaction`` what users seem to think, ``Drift`` notes where the
stream changes, ``HitRate`` and ``Losses`` where predictions get worse, ``Alarm`` rings
when what is served has become bad, ``verdict`` tells which of two models is better;
``Report`` collects a whole replay. All are handed the lists that were ranked: they
never rank anything themselves.
"""

from __future__ import annotations

from headwater.evaluate._alarm import Alarm
from headwater.evaluate._comparison import ALPHA, compared, lift, verdict
from headwater.evaluate._detectors import HitRate, Losses
from headwater.evaluate._drift import Drift
from headwater.evaluate._evaluator import Evaluator
from headwater.evaluate._metrics import (
    HISTORY_BUCKETS,
    ITEM_AGE_BUCKETS,
    RANK_METRICS,
    SEGMENTS,
    gini,
    hits,
    ndcg_gains,
    reciprocal_ranks,
)
from headwater.evaluate._outcomes import LIST_LENGTH, MIXTURE, TOP, Outcomes, compare
from headwater.evaluate._plot import drawable
from headwater.evaluate._report import Report
from headwater.evaluate._satisfaction import Satisfaction, list_diversity

__all__ = [
    "ALPHA",
    "HISTORY_BUCKETS",
    "ITEM_AGE_BUCKETS",
    "LIST_LENGTH",
    "MIXTURE",
    "RANK_METRICS",
    "SEGMENTS",
    "TOP",
    "Alarm",
    "Drift",
    "Evaluator",
    "HitRate",
    "Losses",
    "Outcomes",
    "Report",
    "Satisfaction",
    "compare",
    "compared",
    "drawable",
    "gini",
    "hits",
    "lift",
    "list_diversity",
    "ndcg_gains",
    "reciprocal_ranks",
    "verdict",
]
