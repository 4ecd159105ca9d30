"""What dense weights are learned by, against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headwater.model._dense import DenseWeights, orthogonalized


class Linear(nn.Module):
    """y = B A x, with a bias; only A is a matrix to Muon."""

    def __init__(self, rows: int = 6, columns: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Parameter(torch.randn(rows, columns))
        self.last = nn.Parameter(torch.randn(3, rows))
        self.bias = nn.Parameter(torch.zeros(3))

    def loss(self, seed: int, scale: float = 1.0) -> torch.Tensor:
        x = torch.from_numpy(np.random.default_rng(seed).normal(size=4).astype(np.float32))
        return scale * (self.last @ self.first @ x + self.bias - 1.0).square().sum()


def weights(found):
    return {name: value.astype(np.float64) for name, value in found.values().items()}


def step(weights: DenseWeights, loss: Tensor) -> None:
    weights.differentiate(loss)
    weights.descend(1.0)


@pytest.mark.parametrize("shape", [(5, 5), (12, 4), (3, 20)])
def test_the_singular_values_of_what_is_orthogonalized_are_about_one(shape):
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.normal(size=(shape[0], shape[0])))
    right, _ = np.linalg.qr(random.normal(size=(shape[1], shape[1])))
    values = np.geomspace(1.0, 0.05, min(shape))
    matrix = (left[:, : len(values)] * values) @ right[:, : len(values)].T
    found = orthogonalized(torch.from_numpy(matrix).float()).numpy()
    assert found.shape == shape
    singular = np.linalg.svd(found, compute_uv=False)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    # Its directions are those of the matrix.
    inner = left[:, : len(values)].T @ found @ right[:, : len(values)]
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-4)


def test_nothing_to_go_by_is_no_direction():
    assert not orthogonalized(torch.zeros(3, 4)).any()


def test_a_matrix_goes_down_the_orthogonalized_momentum():
    module = Linear()
    found = DenseWeights("m", module, 0.01, ["first"])
    momentum = np.zeros((6, 4))
    for k in range(40):
        loss = module.loss(k)
        gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
        norm = float(torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(()))))
        gradient = gradients[0].numpy() / max(norm, 1.0)
        momentum = 0.9 * momentum + gradient
        before = weights(found)["m.first"]
        step(found, loss)
        direction = orthogonalized(torch.from_numpy(gradient + 0.9 * momentum).float()).numpy()
        length = 0.01 * (6 / 4) ** 0.5 * 20 / (1 + (k + 1) / 30) ** 0.5
        moved = before - weights(found)["m.first"]
        np.testing.assert_allclose(moved, length * direction, atol=2e-4)


def test_the_length_of_a_step_falls_to_the_least_and_no_further():
    module = Linear()
    found = DenseWeights("m", module, 0.01, ["first"])
    state = found.state() | {
        "step.first": np.array(1e6, np.float32),
        "momentum.first": np.zeros((6, 4), np.float32),
    }
    found.load(state)
    before = weights(found)["m.first"]
    step(found, module.loss(0))
    # One example's gradient has one singular value, and the step has as many.
    moved = np.linalg.svd(before - weights(found)["m.first"], compute_uv=False)
    assert moved[0] == pytest.approx(0.01 * 4 * (6 / 4) ** 0.5, rel=0.35)


def test_a_wild_loss_moves_a_matrix_no_further_than_a_step():
    module = Linear()
    found = DenseWeights("m", module, 0.01, ["first"])
    for k in range(5):
        step(found, module.loss(k))
    before = weights(found)
    step(found, module.loss(9, 1e6))
    moved = np.linalg.svd(before["m.first"] - weights(found)["m.first"], compute_uv=False)
    assert moved.max() < 1.3 * 0.01 * 20 * (6 / 4) ** 0.5


def test_only_what_is_named_is_changed_by_it():
    one, other = Linear(), Linear()
    both = DenseWeights("m", one, 0.01, ["first"]), DenseWeights("m", other, 0.01)
    for module, found in zip((one, other), both, strict=True):
        step(found, module.loss(0))
    changed, plain = (weights(found) for found in both)
    assert (changed["m.first"] != plain["m.first"]).any()
    assert (changed["m.last"] == plain["m.last"]).all()
    assert (changed["m.bias"] == plain["m.bias"]).all()


def test_a_loaded_state_goes_on_bit_for_bit():
    one, other = Linear(), Linear()
    found, loaded = (DenseWeights("m", module, 0.01, ["first"]) for module in (one, other))
    for k in range(7):
        step(found, one.loss(k))
    loaded.load({name: value.copy() for name, value in found.state().items()})
    for k in range(7, 12):
        step(found, one.loss(k))
        step(loaded, other.loss(k))
    for name, value in found.state().items():
        assert (loaded.state()[name] == value).all(), name
