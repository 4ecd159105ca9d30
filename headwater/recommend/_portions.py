"""Lists that are made portion by portion, while counting goes on."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from headwater.model import EXPERTS, Model
from headwater.recommend._candidates import Candidates, propose
from headwater.recommend._features import Features
from headwater.types import NO_ROW, Contexts, Flags, Floats, Ints

_Array = TypeVar("_Array", Ints, Floats)


class Portions:
    """Candidates and features for B contexts, of which later ones may find more counted.

    Args:
        users: (B, D + 1) the sequence expert's vectors of the contexts.
        found: what it proposes to each: rows and scores (B, k).
        k: items that each expert proposes.
    """

    def __init__(
        self, model: Model, features: Features, users: Floats, found: tuple[Ints, Floats], k: int
    ) -> None:
        self._model = model
        self._features = features
        self._users = users
        self._found = found
        self._k = k
        self._done = 0
        self._candidates: list[Candidates] = []
        self._filled: list[Floats] = []

    def add(self, contexts: Contexts, withheld: Flags) -> None:
        """Takes the next of the contexts, with counts as they are now.

        Args:
            contexts: at least one.
            withheld: (N,) item rows that none of them may be shown.
        """
        at = slice(self._done, self._done + len(contexts))
        found = (self._found[0][at], self._found[1][at])
        made = propose(self._model, self._users[at], found, contexts, withheld, self._k)
        self._candidates.append(made)
        self._filled.append(self._features.fill(self._model, contexts, made))
        self._done += len(contexts)

    def rows(self) -> Ints:
        """(B, C) the candidates, ``NO_ROW`` past the end."""
        return _joined([made.rows for made in self._candidates], NO_ROW)

    def features(self) -> Floats:
        """(B, C, F) of the candidates; those past the end of a list mean nothing."""
        return _joined(self._filled, 0.0)

    def expert_rows(self) -> dict[str, Ints]:
        """Name -> (B, k), each expert's own list."""
        return {
            name: np.concatenate([made.lists[name] for made in self._candidates])
            for name in EXPERTS
        }


def _joined(parts: list[_Array], fill: float) -> _Array:
    """(B_p, C_p, ...) each, as one (B, C, ...) with ``fill`` behind those that are shorter."""
    shape = (sum(map(len, parts)), max(part.shape[1] for part in parts), *parts[0].shape[2:])
    whole = np.full(shape, fill, parts[0].dtype)
    start = 0
    for part in parts:
        whole[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return whole
