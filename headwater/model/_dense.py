"""Dense weights: the small part of a model that every step changes as a whole.

By Adam (Kingma and Ba, 2015). Matrices may be changed by Muon instead (Jordan et al., 2024): the
gradient's momentum, with all of its singular values brought to about 1. One pass is too short for
Adam to find the directions that gradients are small in; so they count like the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from headwater.types import Floats, State

_CLIP = 1.0
"""Norm at which a gradient is clipped: one odd batch must not throw the weights."""


_BETAS = (0.9, 0.98)
_EPSILON = 1e-8

_MOMENTUM = 0.9
_AT_FIRST, _LEAST, _SOON = 20.0, 4.0, 30.0
"""Muon's learning rate, by the spectral norm of a step, against Adam's: of the first steps, the
least, and after how many it is 1 / sqrt(2) of the first."""
_ITERATIONS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that drives singular values towards 1, as Jordan et al. give them."""


@dataclass(slots=True)
class Step:
    """A gradient step that may still be left: its mean loss in nats, and what goes down it.

    The gradient is there: what is left to do is short.
    """

    loss: float
    descend: Callable[[], None]

    def take(self) -> float:
        """Changes the weights; returns the loss."""
        self.descend()
        return self.loss


def _flat(weights: Iterable[Tensor]) -> Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in weights])


def orthogonalized(matrix: Tensor) -> Tensor:
    """The matrix with its singular values, those that aren't next to nothing, between about 0.7
    and 1.2: five steps of Newton and Schulz's iteration.
    """
    a, b, c = _ITERATIONS
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / (found.norm() + _EPSILON)
    for _ in range(5):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    result: Tensor = found.T if tall else found
    return result


class DenseWeights:
    """The weights of a module and what they are learned by.

    Args:
        name: prefixes the weights' names on the updates log.
        module: whose parameters are learned.
        learning_rate: of Adam, before the factor given with each step.
        matrices: names of the parameters that Muon changes.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        learning_rate: float,
        matrices: Collection[str] = (),
    ) -> None:
        self.name = name
        self.learning_rate = learning_rate
        self.stride = 0.0
        """By how much the newest step changed the weights, as a root mean square."""
        self._weights = dict(module.named_parameters())
        self._matrices = frozenset(matrices)
        # Views: what is written to them is in the module.
        self._arrays = {
            f"{name}.{key}": weight.detach().numpy() for key, weight in self._weights.items()
        }
        self._moments: dict[str, dict[str, Tensor]] = {}

    def differentiate(self, loss: Tensor) -> None:
        """Finds the gradient of ``loss``, by the weights and by whatever else it depends on."""
        for weight in self._weights.values():
            weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]

    def descend(self, rate: float) -> None:
        """One step down the gradient found last, at ``rate`` times the learning rate."""
        torch.nn.utils.clip_grad_norm_(self._weights.values(), _CLIP)
        learned = {n: weight for n, weight in self._weights.items() if weight.grad is not None}
        before = _flat(learned.values())
        with torch.no_grad():
            of_adam = [name for name in learned if name not in self._matrices]
            self._by_adam({name: learned[name] for name in of_adam}, rate)
            for name in learned.keys() & self._matrices:
                self._by_muon(name, learned[name], rate)
            self.stride = float((_flat(learned.values()) - before).square().mean().sqrt())

    def _by_adam(self, weights: dict[str, nn.Parameter], rate: float) -> None:
        for name, weight in weights.items():
            if name not in self._moments:
                self._moments[name] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        moments = [self._moments[name] for name in weights]
        # Not the class: made once, it imports the compiler, which takes a second of every start.
        adam(
            list(weights.values()),
            [weight.grad for weight in weights.values() if weight.grad is not None],
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

    def _by_muon(self, name: str, weight: nn.Parameter, rate: float) -> None:
        gradient = weight.grad
        assert gradient is not None
        if name not in self._moments:
            self._moments[name] = {
                "step": torch.zeros((), dtype=torch.float32),
                "momentum": torch.zeros_like(weight),
            }
        step, momentum = self._moments[name]["step"], self._moments[name]["momentum"]
        momentum.mul_(_MOMENTUM).add_(gradient)
        step.add_(1.0)
        falling = max(_AT_FIRST / (1.0 + float(step) / _SOON) ** 0.5, _LEAST)
        rows, columns = weight.shape
        # What a unit gets of a step doesn't depend on how many units there are.
        length = self.learning_rate * rate * falling * max(1.0, rows / columns) ** 0.5
        weight.sub_(orthogonalized(gradient.add(momentum, alpha=_MOMENTUM)), alpha=length)

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
