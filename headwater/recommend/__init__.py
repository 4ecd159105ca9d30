"""Stage 7, recommend: candidates, scores, rules, reasons.

``Recommender.rank`` answers requests and, in the same words, predicts events for
the evaluation: what is measured is what is served. Nothing here learns.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from headwater.config import Config
from headwater.model import EXPERTS, Model
from headwater.recommend._candidates import propose
from headwater.recommend._effects import feature_effects
from headwater.recommend._features import Features
from headwater.recommend._first import first
from headwater.recommend._portions import Portions
from headwater.recommend._reasons import largest_first
from headwater.recommend._similar import similar_items, similar_users
from headwater.recommend._vectors import UserVectors
from headwater.types import NO_ROW, Contexts, FeatureEffect, Flags, Floats, Ints, Ranking, Reason

__all__ = ["Features", "Recommender", "UserVectors", "similar_items", "similar_users"]


class Recommender:
    """Ranks items for contexts with the model as it is.

    Args:
        vectors: keeps user vectors; it has to be cleared with every change of the model.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        features: Features,
        vectors: UserVectors | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.features = features
        self._vectors = vectors

    def rank(
        self, contexts: Contexts, withheld: Flags, n: int = 0, *, whole: bool = True
    ) -> Ranking:
        """Ranks the union of the experts' candidates for each context.

        Args:
            contexts: B requests.
            withheld: (N,) item rows that may not be shown to anyone.
            n: wanted length of the lists; the experts propose at least as many.
            whole: whether the ranking holds all candidates, or the best n.
        """
        model = self.model
        if withheld.all() or not len(contexts):
            return self._nothing(len(contexts))
        k = max(self.config.mixture.candidates, n)
        users = self._encode(contexts)
        found = model.sequence.candidates(users, contexts, withheld, k)
        candidates = propose(model, users, found, contexts, withheld, k)
        features = self.features.fill(model, contexts, candidates)
        ranking = self._ordered(candidates.rows, features, candidates.lists, None if whole else n)
        ranking.opinions = candidates.opinions
        return ranking

    def portions(self, contexts: Contexts, withheld: Flags) -> Portions:
        """For ranking contexts portion by portion, while counting goes on in between.

        The sequence expert, which no count changes, is asked for all of them at once.

        Args:
            contexts: B requests, at least one, while there is an item.
            withheld: (N,) item rows that it may propose to none of them.
        """
        k = self.config.mixture.candidates
        users = self._encode(contexts)
        found = self.model.sequence.candidates(users, contexts, withheld, k)
        return Portions(self.model, self.features, users, found, k)

    def rank_portions(self, portions: Portions | None) -> Ranking:
        """Ranks what the portions hold, once all contexts are among them; ``None`` for none."""
        if portions is None:
            return self._nothing(0)
        return self._ordered(portions.rows(), portions.features(), portions.expert_rows())

    def popular(self, n: int, withheld: Flags) -> tuple[list[int], list[float]]:
        """The n most popular rows that may be shown, and their shares of the events."""
        # Those that lead are known without a look at every item; only where too many of them may
        # not be shown are all put in order.
        for most in (2 * n, None):
            rows, scores, all_of_them = self.model.popularity.leaders(most)
            rows, scores = rows[scores > 0], scores[scores > 0]
            shown = rows < len(withheld)
            shown[shown] = ~withheld[rows[shown]]
            rows, scores = rows[shown][:n], scores[shown][:n]
            if all_of_them or len(rows) == n:
                return rows.tolist(), scores.tolist()
        scores = self.model.popularity.scores()
        scores[withheld] = 0.0
        order = np.lexsort((np.arange(len(scores)), -scores))[:n]
        order = order[scores[order] > 0]
        return order.tolist(), scores[order].tolist()

    def similar_items(
        self, contexts: Contexts, withheld: Flags, n: int
    ) -> list[tuple[int, float, list[Reason]]]:
        """The n items that go best with the one that the only context's history holds.

        Row, score from 0 to 1, and the experts that say so, whose contributions add up to it.
        """
        # The same for every n, or a shorter list wouldn't be the beginning of a longer one.
        k = max(self.config.mixture.candidates, self.config.recommend.max_n)
        return similar_items(self.model, contexts, withheld, k, n)

    def similar_users(
        self, contexts: Contexts, others: Contexts, n: int
    ) -> list[tuple[int, float]]:
        """The n others who are most similar to the user of the only context: row and cosine."""
        if not len(others):
            return []
        user = self._encode(contexts)[0, :-1]
        vectors = self._encode(others)[:, :-1]
        found = similar_users(user, vectors, n)
        return [(int(others.users[place]), similarity) for place, similarity in found]

    def reasons(
        self, contexts: Contexts, ranking: Ranking, n: int, item_id: Callable[[int], str]
    ) -> list[list[list[Reason]]]:
        """Why each of the first n items of each list is in it, largest share first.

        An expert whose share is nothing is left out.

        Args:
            contexts: B requests.
            ranking: their lists.
            n: items to explain per list; places past the end of a list get no reasons.
            item_id: of a row.
        """
        rows = ranking.rows[:, :n]
        if not (rows != NO_ROW).any():
            return [[] for _ in rows]  # before the first item there are no tables to look into
        shares = self.model.mixture.shares(ranking.features[:, :n])
        sources = np.full(shares.shape, NO_ROW, np.int32)
        for number, expert in enumerate(EXPERTS):
            if expert in ranking.opinions:
                sources[:, :, number] = ranking.opinions[expert].sources(rows)
            elif expert == "sequence":
                sources[:, :, number] = self.model.sequence.sources(contexts, rows)
        experts, said, from_where, ends = largest_first(rows, shares, sources)
        named = from_where.tolist()
        ids = {row: item_id(row) if row != NO_ROW else None for row in set(named)}
        reasons = list(
            map(
                Reason,
                map(EXPERTS.__getitem__, experts.tolist()),
                said.tolist(),
                map(ids.__getitem__, named),
            )
        )
        of_items = [reasons[a:b] for a, b in pairwise([0, *ends.tolist()])]
        lengths = np.cumsum((rows != NO_ROW).sum(axis=1)).tolist()
        return [of_items[a:b] for a, b in pairwise([0, *lengths])]

    def effects(self, ranking: Ranking, n: int) -> list[list[list[FeatureEffect]]]:
        """For each of the first n items of each list, the features that move its score most."""
        lengths = (ranking.rows[:, :n] != NO_ROW).sum(axis=1).tolist()
        return [
            feature_effects(self.model.mixture, ranking.features[b, :k], self.features.names)
            for b, k in enumerate(lengths)
        ]

    def _ordered(
        self, rows: Ints, features: Floats, lists: dict[str, Ints], n: int | None = None
    ) -> Ranking:
        """Candidates in the order of the mixture, all or the best n."""
        there = rows != NO_ROW
        scores = self.model.mixture.scores(features, there)
        if n is not None:
            return Ranking(*first(rows, scores, features, n), expert_rows=lists)
        scores[~there] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        return Ranking(
            rows=np.take_along_axis(rows, order, axis=1),
            scores=np.take_along_axis(scores, order, axis=1),
            # By the row: element by element it takes 25 times as long.
            features=features[np.arange(len(order))[:, None], order],
            expert_rows=lists,
        )

    def _nothing(self, n: int) -> Ranking:
        """N lists of nothing."""
        nothing = np.full((n, 1), NO_ROW, np.int32)
        return Ranking(
            rows=nothing,
            scores=np.full((n, 1), -np.inf, np.float32),
            features=np.zeros((n, 1, len(self.features)), np.float32),
            expert_rows=dict.fromkeys(EXPERTS, nothing),
        )

    def _encode(self, contexts: Contexts) -> Floats:
        if self._vectors is None:
            return self.model.sequence.encode(contexts)
        return self._vectors.of(self.model.sequence, contexts)
