"""Beginnings of streams with several event types, and the settings that are tried on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from headwater.ingest import Interactions, read_interactions

Sections = dict[str, dict[str, Any]]
"""Settings by section, as in the settings file."""


@dataclass(frozen=True)
class Spec:
    """A stream: at most its first half is read, for settings are chosen on it."""

    name: str
    first_half: int  # of its rows
    frequent: str  # its most frequent event type
    events: Sections  # event types that differ from the built-in ones
    retype: Callable[[Interactions], Interactions] = lambda interactions: interactions


def _coupons(interactions: Interactions) -> Interactions:
    """Purchases that a coupon was redeemed with are a type of their own."""
    columns = pl.read_parquet(interactions.path, columns=["coupon_disc"])
    redeemed = columns["coupon_disc"].to_numpy()[interactions.index] > 0
    return replace(
        interactions, type_names=["purchase", "coupon"], type_codes=redeemed.astype(np.int32)
    )


SPECS = {
    spec.name: spec
    for spec in (
        Spec("informfully-idea", 16_988, "rating", {"rating": {"repeats": True}}),
        Spec("online-retail", 30_000, "purchase", {}),
        Spec(
            "complete-journey-sample",
            37_500,
            "purchase",
            {"purchase": {"weight": 1.0}, "coupon": {"weight": 5.0}},
            _coupons,
        ),
    )
}

DEFAULT = "default"
OTHER_SEEDS = "default, other seeds"

_KEEP = 0.2
_ITEM_SHARE = 0.002


def settings(spec: Spec) -> dict[str, Sections]:
    """What is tried on a stream, by name; what a name doesn't say is as by default."""
    thinned = {"events": {spec.frequent: {"keep": _KEEP}}}
    return {
        DEFAULT: {},
        OTHER_SEEDS: {},
        "by = resample": {"imbalance": {"by": "resample"}},
        "rare_items = 0.5": {"imbalance": {"rare_items": 0.5}},
        "rare_types = 0.5": {"imbalance": {"rare_types": 0.5}},
        f"keep = {_KEEP} of {spec.frequent}": thinned,
        f"item_share = {_ITEM_SHARE}": {"imbalance": {"item_share": _ITEM_SHARE}},
        "members = 3": {"mixture": {"members": 3}},
        f"members = 3, keep = {_KEEP}": {**thinned, "mixture": {"members": 3}},
    }


def read(spec: Spec, limit: int) -> Interactions:
    """The first ``limit`` interactions of the stream, and no more than its first half.

    Raises:
        UnreadableFile: the stream isn't there.
    """
    folder = Path(os.environ.get("HEADWATER_STREAMS", "../shared/data"))
    path = folder / spec.name / "interactions.parquet"
    return spec.retype(read_interactions(path, limit=min(limit, spec.first_half)))
