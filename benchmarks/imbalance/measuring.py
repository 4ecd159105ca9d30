"""Runs a setting on a stream, and compares what the lists gained with the default."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.imbalance.streams import DEFAULT, OTHER_SEEDS, SPECS, Sections, read, settings
from headwater.config import Config
from headwater.replay import replay

Gains = NDArray[np.float64]
Segments = dict[str, NDArray[np.bool_]]

RESAMPLES = 500
_RARE = 5
"""A target's item is rare with fewer events than this before it."""


@dataclass
class Run:
    """One replay: NDCG@10 of every target, which segments it is in, and CPU seconds."""

    gains: Gains  # (n,)
    segments: Segments  # name -> (n,)
    seconds: float


def run(stream: str, setting: str, limit: int, seed: int) -> Run:
    """Replays the stream's beginning under a setting."""
    spec = SPECS[stream]
    interactions = read(spec, limit)
    config = _config(settings(spec)[setting], spec.events, seed)
    started = time.process_time()
    replayed = replay(interactions, [], config, grouped=True)
    seconds = time.process_time() - started
    at = replayed.positions
    table = replayed.report.ranks_table(interactions.index[at], [""] * len(at), [""] * len(at))
    ranks = table["rank"].cast(float).fill_null(np.inf).to_numpy()
    kinds = interactions.type_codes[at]
    segments = {
        name: kinds == code
        for code, name in enumerate(interactions.type_names)
        if (kinds == code).any()
    }
    before = table["item_events_before"].to_numpy()
    segments["rare item"] = (before > 0) & (before < _RARE)
    return Run(np.where(ranks < 10, 1.0 / np.log2(ranks + 2.0), 0.0), segments, seconds)


def seeds_of(setting: str, seeds: int) -> range:
    """The seeds that a setting is run with: two sets of the default say what chance does."""
    return range(seeds, 2 * seeds) if setting == OTHER_SEEDS else range(seeds)


def compared(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Setting -> CPU seconds, and per segment NDCG@10 and its change against the default.

    Gains are means over the seeds. Intervals of changes are 95 % of a bootstrap over
    targets, paired (Efron, 1979); they don't hold what another seed would change.
    """
    default = _mean(runs[DEFAULT])
    return {
        setting: {
            "cpu_seconds": float(np.mean([one.seconds for one in of_setting])),
            "segments": {
                name: _change(_mean(of_setting)[inside], default[inside])
                for name, inside in _segments(of_setting[0]).items()
            },
        }
        for setting, of_setting in runs.items()
    }


def _config(sections: Sections, events: Sections, seed: int) -> Config:
    own = sections.get("events", {})
    types = {name: events.get(name, {}) | own.get(name, {}) for name in {*events, *own}}
    return Config.model_validate({**sections, "events": types, "seed": seed})


def _mean(runs: list[Run]) -> Gains:
    mean: Gains = np.mean([one.gains for one in runs], axis=0)
    return mean


def _segments(one: Run) -> Segments:
    return {"all": np.ones(len(one.gains), np.bool_), **one.segments}


def _change(gains: Gains, default: Gains) -> dict[str, Any]:
    difference = gains - default
    random = np.random.default_rng(0)
    means = [random.choice(difference, len(difference)).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "n": len(gains),
        "ndcg@10": float(gains.mean()),
        "change": float(difference.mean()),
        "change_interval": [float(low), float(high)],
    }
