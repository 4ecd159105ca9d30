"""Two recommenders of the ``implicit`` library; they run where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.quality.protocol import REFITS

Settings = dict[str, float]


class Knn:
    """Item-to-item cosine over users' sets of items, refitted."""

    refits = REFITS

    def __init__(self, neighbours: int) -> None:
        self._neighbours = neighbours
        self._similar: Any = None

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        model = CosineRecommender(K=self._neighbours, num_threads=1)
        model.fit(_matrix(users, items, seen), show_progress=False)
        self._similar = model.similarity.tocsr()

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        known = _known(history, 0 if self._similar is None else self._similar.shape[0])
        if not known:
            return None
        starts = self._similar.indptr
        places = np.concatenate([np.arange(starts[item], starts[item + 1]) for item in known])
        rows, values = self._similar.indices[places], self._similar.data[places]
        return np.bincount(rows, weights=values, minlength=self._similar.shape[0])

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        """Learns by refitting only."""


class Als:
    """iALS (Hu, Koren & Volinsky, ICDM 2008), refitted; users are folded in as they are now."""

    refits = REFITS

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model: AlternatingLeastSquares | None = None
        self._items = 0

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        self._model = AlternatingLeastSquares(
            factors=int(self._settings["factors"]),
            regularization=self._settings["regularization"],
            alpha=self._settings["alpha"],
            iterations=int(self._settings["iterations"]),
            random_state=int(self._settings["seed"]),
            num_threads=1,
        )
        self._model.fit(_matrix(users, items, seen), show_progress=False)
        self._items = seen

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        known = _known(history, self._items)
        if self._model is None or not known:
            return None
        row = csr_matrix(
            (np.ones(len(known), np.float32), np.array(known, np.int32), [0, len(known)]),
            shape=(1, self._items),
        )
        found: NDArray[Any] = self._model.item_factors @ self._model.recalculate_user(0, row)
        return found

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        """Learns by refitting only."""


def _known(history: list[int], items: int) -> list[int]:
    return sorted({item for item in history if item < items})


def _matrix(users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> Any:
    """(users, items) ones: who had what."""
    shape = (int(users.max()) + 1, seen)
    matrix = csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)
    matrix.data[:] = 1.0
    return matrix
