"""Stage 7, recommend: candidates, scores, rules, reasons.

``Recommender.rank`` answers requests and, in the same words, predicts events for
the evaluation: what is measured is what is served. Nothing here learns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headwater.config import Config
from headwater.model import EXPERTS, Model
from headwater.recommend._candidates import propose
from headwater.recommend._features import Features
from headwater.types import NO_ROW, Contexts, Flags, Ranking, Reason

__all__ = ["Features", "Recommender"]


class Recommender:
    """Ranks items for contexts with the model as it is."""

    def __init__(self, config: Config, model: Model, features: Features) -> None:
        self.config = config
        self.model = model
        self.features = features

    def rank(self, contexts: Contexts, withheld: Flags, n: int = 0) -> Ranking:
        """Ranks the union of the experts' candidates for each context.

        Args:
            contexts: B requests.
            withheld: (N,) item rows that may not be shown to anyone.
            n: wanted length of the lists; the experts propose at least as many.
        """
        model = self.model
        if withheld.all():
            nothing = np.full((len(contexts), 1), NO_ROW, np.int32)
            return Ranking(
                rows=nothing,
                scores=np.full((len(contexts), 1), -np.inf, np.float32),
                features=np.zeros((len(contexts), 1, len(self.features)), np.float32),
                expert_rows=dict.fromkeys(EXPERTS, nothing),
            )
        k = max(self.config.mixture.candidates, n)
        candidates = propose(model, contexts, withheld, k)
        features = self.features.fill(model, contexts, candidates)
        scores = model.mixture.scores(features)
        scores[candidates.rows == NO_ROW] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        return Ranking(
            rows=np.take_along_axis(candidates.rows, order, axis=1),
            scores=np.take_along_axis(scores, order, axis=1),
            features=np.take_along_axis(features, order[:, :, None], axis=1),
            expert_rows=candidates.lists,
        )

    def popular(self, n: int, withheld: Flags) -> tuple[list[int], list[float]]:
        """The n most popular rows that may be shown, and their shares of the events."""
        scores = self.model.popularity.scores()
        scores[withheld] = 0.0
        rows = np.lexsort((np.arange(len(scores)), -scores))[:n]
        rows = rows[scores[rows] > 0]
        return rows.tolist(), scores[rows].tolist()

    def reasons(
        self,
        contexts: Contexts,
        ranking: Ranking,
        b: int,
        n: int,
        item_id: Callable[[int], str],
    ) -> list[list[Reason]]:
        """Why each of the first n items of list b is in it: every expert's share, largest first."""
        shares = self.model.mixture.contributions(ranking.features[b, :n])
        sources = {
            "transitions": self.model.transitions.sources(contexts, b, ranking.rows[b, :n]),
            "sequence": self.model.sequence.sources(contexts, b, ranking.rows[b, :n]),
        }
        reasons = []
        for place in range(n):
            of_item = []
            for expert in EXPERTS:
                source = int(sources[expert][place]) if expert in sources else NO_ROW
                of_item.append(
                    Reason(
                        expert=expert,
                        contribution=round(float(shares[expert][place]), 6),
                        because_of=None if source == NO_ROW else item_id(source),
                    )
                )
            reasons.append(sorted(of_item, key=lambda reason: -reason.contribution))
        return reasons
