"""Dense weights: the small part of a model that every step changes as a whole, by Adam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headwater.types import Floats, State

_CLIP = 1.0
"""Norm at which a gradient is clipped: one odd batch must not throw the weights."""


@dataclass(slots=True)
class Step:
    """A gradient step that may still be left: its mean loss in nats, and what goes down it."""

    loss: float
    descend: Callable[[], None]

    def take(self) -> float:
        """Changes the weights; returns the loss."""
        self.descend()
        return self.loss


class DenseWeights:
    """The weights of a module and their Adam optimizer (Kingma and Ba, 2015).

    Args:
        name: prefixes the weights' names on the updates log.
        module: whose parameters are learned.
        learning_rate: of Adam, before the factor given with each step.
    """

    def __init__(self, name: str, module: nn.Module, learning_rate: float) -> None:
        self.name = name
        self.learning_rate = learning_rate
        self._weights = dict(module.named_parameters())
        self._optimizer = torch.optim.Adam(
            self._weights.values(), lr=learning_rate, betas=(0.9, 0.98), fused=True
        )

    def descend(self, loss: Tensor, rate: float) -> None:
        """One step down the gradient of ``loss``, at ``rate`` times the learning rate."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._weights.values(), _CLIP)
        self._optimizer.param_groups[0]["lr"] = self.learning_rate * rate
        self._optimizer.step()

    def values(self) -> dict[str, Floats]:
        """A copy of the weights by name."""
        return {
            f"{self.name}.{name}": weight.detach().numpy().copy()
            for name, weight in self._weights.items()
        }

    def put(self, values: dict[str, Floats]) -> None:
        """Takes over published weights; names of other parts of the model are ignored."""
        for name, weight in self._weights.items():
            if (value := values.get(f"{self.name}.{name}")) is not None:
                weight.detach().numpy()[...] = value

    def state(self) -> State:
        state: State = {}
        for name, weight in self._weights.items():
            state[f"weight.{name}"] = weight.detach().numpy()
            for moment, tensor in self._optimizer.state[weight].items():
                state[f"{moment}.{name}"] = tensor.numpy()
        return state

    def load(self, state: State) -> None:
        self.put(
            {
                f"{self.name}.{key.removeprefix('weight.')}": value
                for key, value in state.items()
                if key.startswith("weight.")
            }
        )
        self._optimizer.state.clear()
        for name, weight in self._weights.items():
            moments = {
                key.split(".", 1)[0]: torch.from_numpy(value.copy())
                for key, value in state.items()
                if key.split(".", 1)[1] == name and not key.startswith("weight.")
            }
            if moments:
                self._optimizer.state[weight] = moments
