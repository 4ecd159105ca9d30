"""Stage 4, evaluate: every prediction is tested on what then happened, before it is learned.

``Evaluator`` keeps the running metrics of a live system, by segment and in
bounded memory; ``Report`` collects a whole replay. Both are handed the lists
that were ranked: they never rank anything themselves.
"""

from __future__ import annotations

from headwater.evaluate._evaluator import Evaluator
from headwater.evaluate._metrics import (
    HISTORY_BUCKETS,
    ITEM_AGE_BUCKETS,
    RANK_METRICS,
    SEGMENTS,
    hits,
    ndcg_gains,
    reciprocal_ranks,
)
from headwater.evaluate._outcomes import LIST_LENGTH, MIXTURE, Outcomes
from headwater.evaluate._report import Report

__all__ = [
    "HISTORY_BUCKETS",
    "ITEM_AGE_BUCKETS",
    "LIST_LENGTH",
    "MIXTURE",
    "RANK_METRICS",
    "SEGMENTS",
    "Evaluator",
    "Outcomes",
    "Report",
    "hits",
    "ndcg_gains",
    "reciprocal_ranks",
]
