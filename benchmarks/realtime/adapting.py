"""Ways to go on learning with little: what of a sequence expert is frozen, what still moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.model import Examples, SequenceExpert, Step
from headwater.model._dense import DenseWeights
from headwater.model._tower import Tower
from headwater.types import Floats, Ints, State

RANK = 8
"""Of the adapter; a first guess."""


def full(_: SequenceExpert) -> None:
    """Everything goes on learning."""


def rows_only(expert: SequenceExpert) -> None:
    """The dense weights stay as they are; rows of items go on."""
    expert.encoder.requires_grad_(False)
    expert.dense = _Frozen()


def adapter(expert: SequenceExpert) -> None:
    """The encoder and the rows of items stay, but for those that the stream names; what goes on
    beside them is a low-rank change of user vectors, u + u A B (LoRA; Hu et al., 2021).

    Nothing is passed back through the encoder.
    """
    expert.__class__ = _Adapted
    expert.tower.__class__ = _Named
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expert.adapter = _Adapter(expert.settings.dim)  # type: ignore[attr-defined]
    expert.dense = DenseWeights(
        "sequence.adapter",
        expert.adapter,  # type: ignore[attr-defined]
        expert.settings.learning_rate,
    )


def nothing(expert: SequenceExpert) -> None:
    """All of the sequence expert stays as it is; counts and the mixture go on."""
    rows_only(expert)
    expert.tower.__class__ = _Still


WAYS: dict[str, Callable[[SequenceExpert], None]] = {
    "full": full,
    "rows": rows_only,
    "adapter": adapter,
    "nothing": nothing,
}


class _Frozen(DenseWeights):
    """No weights: none to learn, to send or to take over."""

    def __init__(self) -> None:
        self.name = "frozen"
        self.stride = 0.0

    def differentiate(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def descend(self, rate: float) -> None:
        pass

    def values(self) -> dict[str, Floats]:
        return {}

    def put(self, values: dict[str, Floats]) -> None:
        pass

    def state(self) -> State:
        return {}


class _Adapter(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(dim, RANK) / dim**0.5)
        self.up = nn.Parameter(torch.zeros(RANK, dim))

    def forward(self, users: Tensor) -> Tensor:
        changed: Tensor = users + users @ self.down @ self.up
        return changed


class _Adapted(SequenceExpert):
    adapter: _Adapter

    def begin(self, examples: Examples, *others: Any, **named: Any) -> Callable[[], Step]:
        assert isinstance(self.tower, _Named)
        self.tower.named = np.unique(examples.targets[examples.weights != 0])
        return super().begin(examples, *others, **named)

    def _forward(self, *arguments: Any, **named: Any) -> Tensor:
        with torch.no_grad():
            users = super()._forward(*arguments, **named)
        return self.adapter(users)  # type: ignore[no-any-return]

    def _encode(self, *histories: Any) -> Floats:
        users = super()._encode(*histories)
        with torch.inference_mode():
            users[:, :-1] = self.adapter(torch.from_numpy(users[:, :-1])).numpy()
        return users


class _Named(Tower):
    """Of a step's rows only those of the items that it was to foretell are learned."""

    named: Ints

    def descend(self, rows: Ints, gradients: Floats, users: Floats, learning_rate: float) -> None:
        kept = np.isin(rows, self.named)
        super().descend(rows[kept], gradients[kept], users, learning_rate)


class _Still(Tower):
    def descend(self, rows: Ints, gradients: Floats, users: Floats, learning_rate: float) -> None:
        pass
