"""The directions that users' vectors fill: the few that tell, for users, one item from another.

With u_1 ... u_n the vectors of users, each of length 1, and

    M = mean of u_k u_k^T,    E = its eigenvectors of the k largest eigenvalues,

<u, v> and <E^T u, E^T v> differ by what u has outside of E alone, however v is: M's trace within E
is the share of users' squared lengths that is kept. Vectors of users are sums of a few items' under
weights that all users share, and fill far fewer directions than they have columns.
"""

from __future__ import annotations

import numpy as np

from headwater.types import Floats, State

_SLOWNESS = 32
"""Steps over which the second moment is taken."""

_FOUND = 0.985
_LOST = 0.975
"""Share of users' squared lengths that new directions keep, and below which they are given up. Of
the best 50 items 99.3 % at least were found between the two, 150 more scored exactly
(docs/decisions/0031-along-the-directions-that-users-fill.md)."""


class Directions:
    """The second moment of users' vectors, and the directions that these fill.

    Args:
        dim: D, of a user's vector without the column for the bias.
    """

    def __init__(self, dim: int) -> None:
        self._moment = np.zeros((dim, dim), np.float32)
        self._steps = np.zeros(1, np.int64)

    @property
    def steps(self) -> int:
        """How many steps' users were taken into account."""
        return int(self._steps[0])

    def see(self, users: Floats) -> None:
        """Takes (B, D) users of a step into account."""
        self._steps[0] += 1
        lengths = np.linalg.norm(users, axis=1, keepdims=True)
        there = lengths[:, 0] > 0
        if there.any():
            unit = users[there] / lengths[there]
            weight = np.float32(max(1.0 / self.steps, 1.0 / _SLOWNESS))
            self._moment += weight * (unit.T @ unit / np.float32(len(unit)) - self._moment)

    def are_kept_by(self, basis: Floats) -> bool:
        """Whether (D, k) directions still keep enough of users' vectors."""
        kept = np.einsum("dk,de,ek->", basis, self._moment, basis)
        return bool(kept >= _LOST * self._moment.trace())

    def find(self, sizes: list[int]) -> Floats | None:
        """(D, k) with orthonormal columns: of the given numbers of them the smallest that keeps
        enough, or else all; ``None`` while there is nothing to find them by.
        """
        if not self._moment.any():
            return None
        values, vectors = np.linalg.eigh(self._moment)
        kept = np.cumsum(values[::-1]) / values.sum()
        n = next((size for size in sizes if kept[size - 1] >= _FOUND), len(values))
        return np.ascontiguousarray(vectors[:, ::-1][:, :n])

    def state(self) -> State:
        return {"moment": self._moment, "steps": self._steps}

    def load(self, state: State) -> None:
        self._moment, self._steps = state["moment"].copy(), state["steps"].copy()
