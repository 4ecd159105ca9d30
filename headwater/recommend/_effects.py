"""Which features make an item stand out of its list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headwater.model import Mixture
from headwater.types import FeatureEffect, Floats

COUNTED = 5
"""Features named per item: beyond a handful, effects are too small to explain anything."""


def feature_effects(
    mixture: Mixture, features: Floats, names: Sequence[str]
) -> list[list[FeatureEffect]]:
    """For each item of one list, the features that move its score most, by size of the effect.

    An effect is the score less the score with that one feature at the mean of the list
    (occlusion, Zeiler and Fergus, ECCV 2014). A feature of the request is the same for every
    item, and so has none.

    Args:
        mixture: the network that scored the list.
        features: (C, F).
        names: of the F features.
    """
    items, n = features.shape
    if not items:
        return []
    without = np.repeat(features[None], n, axis=0)  # (F, C, F)
    columns = np.arange(n)
    without[columns, :, columns] = features.mean(axis=0)[:, None]
    effects = mixture.scores(features)[:, None] - mixture.scores(without).T  # (C, F)
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :COUNTED]
    return [
        [
            FeatureEffect(
                names[column],
                round(float(features[item, column]), 6),
                round(float(effects[item, column]), 6),
            )
            for column in order[item]
            if abs(effects[item, column]) > 1e-6
        ]
        for item in range(items)
    ]
