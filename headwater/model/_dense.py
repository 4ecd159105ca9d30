"""Dense weights: the small part of a model that every step changes as a whole, by Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from headwater.types import Floats, State

_CLIP = 1.0
"""Norm at which a gradient is clipped: one odd batch must not throw the weights."""


_BETAS = (0.9, 0.98)
_EPSILON = 1e-8


@dataclass(slots=True)
class Step:
    """A gradient step that may still be left: its mean loss in nats, and what goes down it."""

    loss: float
    descend: Callable[[], None]

    def take(self) -> float:
        """Changes the weights; returns the loss."""
        self.descend()
        return self.loss


def _flat(weights: Iterable[Tensor]) -> Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in weights])


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
        self.stride = 0.0
        """By how much the newest step changed the weights, as a root mean square."""
        self._weights = dict(module.named_parameters())
        # Views: what is written to them is in the module.
        self._arrays = {
            f"{name}.{key}": weight.detach().numpy() for key, weight in self._weights.items()
        }
        self._moments: dict[str, dict[str, Tensor]] = {}

    def descend(self, loss: Tensor, rate: float) -> None:
        """One step down the gradient of ``loss``, at ``rate`` times the learning rate."""
        for weight in self._weights.values():
            weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._weights.values(), _CLIP)
        learned = {n: weight for n, weight in self._weights.items() if weight.grad is not None}
        for name, weight in learned.items():
            if name not in self._moments:
                self._moments[name] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        moments = [self._moments[name] for name in learned]
        before = _flat(learned.values())
        # Not the class: made once, it imports the compiler, which takes a second of every start.
        with torch.no_grad():
            adam(
                list(learned.values()),
                [weight.grad for weight in learned.values() if weight.grad is not None],
                [of["exp_avg"] for of in moments],
                [of["exp_avg_sq"] for of in moments],
                [],
                [of["step"] for of in moments],
                fused=True,
                amsgrad=False,
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                lr=self.learning_rate * rate,
                weight_decay=0.0,
                eps=_EPSILON,
                maximize=False,
            )
            self.stride = float((_flat(learned.values()) - before).square().mean().sqrt())

    def values(self) -> dict[str, Floats]:
        """A copy of the weights by name."""
        return {
            f"{self.name}.{name}": weight.detach().numpy().copy()
            for name, weight in self._weights.items()
        }

    def put(self, values: dict[str, Floats]) -> None:
        """Takes over published weights; names of other parts of the model are ignored."""
        for name, array in self._arrays.items():
            if (value := values.get(name)) is not None:
                array[...] = value

    def state(self) -> State:
        state: State = {}
        for name, weight in self._weights.items():
            state[f"weight.{name}"] = weight.detach().numpy()
            for moment, tensor in self._moments.get(name, {}).items():
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
        self._moments.clear()
        for name in self._weights:
            moments = {
                key.split(".", 1)[0]: torch.from_numpy(value.copy())
                for key, value in state.items()
                if key.split(".", 1)[1] == name and not key.startswith("weight.")
            }
            if moments:
                self._moments[name] = moments
