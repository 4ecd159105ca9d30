"""Effects of single features, beside those that the weights of a linear network tell."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.config import Mixture as Settings
from headwater.model import FirstLists, Mixture
from headwater.recommend._effects import COUNTED, feature_effects
from headwater.types import Floats


def linear(weights: list[float]) -> Mixture:
    """A mixture that is untrained, and so no more than its linear part."""
    n = len(weights)
    first, silence = FirstLists(flag=0, popularity=0), np.zeros(n, np.float32)
    found = Mixture(Settings(hidden=4), np.array(weights, np.float32), first, {}, silence, seed=0)
    found.note_first(np.array([[0.0, 1.0]], np.float32))  # the networks score first lists too
    return found


def test_the_effect_is_the_weight_times_the_distance_from_the_mean() -> None:
    features: Floats = np.array([[1.0, 0.0, 5.0], [3.0, 2.0, 5.0]], np.float32)
    first, second = feature_effects(linear([2.0, -1.0, 4.0]), features, ("a", "b", "c"))
    assert [(one.feature, one.value) for one in first] == [("a", 1.0), ("b", 0.0)]
    assert [one.effect for one in first] == pytest.approx([-2.0, 1.0], abs=1e-5)
    assert [one.feature for one in second] == ["a", "b"]
    assert [one.effect for one in second] == pytest.approx([2.0, -1.0], abs=1e-5)


def test_only_the_largest_are_named() -> None:
    names = tuple(f"f{k}" for k in range(12))
    features = np.eye(2, 12, dtype=np.float32) + np.arange(24, dtype=np.float32).reshape(2, 12)
    found = feature_effects(linear([float(k) for k in range(12)]), features, names)
    for item in found:
        assert len(item) == COUNTED
        assert item[0].feature == "f11"


def test_an_empty_list_has_none() -> None:
    assert feature_effects(linear([1.0]), np.zeros((0, 1), np.float32), ("a",)) == []
