"""Which settings are worth a trial beside the live ones, and for how long.

Successive halving (Jamieson and Talwalkar, *Non-stochastic Best Arm Identification and
Hyperparameter Optimization*, AISTATS 2016), one challenger at a time: in the first rung every
candidate is compared with the live model on ``FIRST_EVENTS`` events, and in each further one the
better half of those that did better than it on twice as many. The gate watches all the while: a
candidate goes live as soon as the evidence is enough, and from then on candidates are made
around its settings.

Lifts of different stretches of the stream can be told apart by size because each is against the
live model, on the same events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from headwater.config import Config, overridden, values_of
from headwater.errors import ConfigError
from headwater.types import Challenger, Proposed, Trial

FIRST_EVENTS = 2_000
"""Comparisons of the first rung. A lift of 5 % took 5,200 to be shown, and shows before."""

_FACTORS = {
    "sequence.learning_rate": 3.0,
    "sequence.row_learning_rate": 3.0,
    "mixture.learning_rate": 3.0,
    "sequence.replay": 2.0,
    "mixture.replay": 2.0,
    "popularity.half_lives_hours": 4.0,
    "transitions.half_life_days": 4.0,
    "neighbours.half_life_days": 4.0,
    "preprocess.history_length": 2.0,
}
"""By which factor a setting is raised and lowered. A first guess."""

_COUNTED = frozenset(
    {
        *("popularity.half_lives_hours", "transitions.half_life_days"),
        *("neighbours.half_life_days", "preprocess.history_length"),
    }
)
"""Learned from the log's beginning, which has to be there."""

MOST_PROPOSED = 2 * len(_FACTORS) + 1
"""Candidates of a round. A proposed challenger needs so many times the evidence: of all rounds
around settings that can't be bettered, one in a hundred promotes anything."""

Tried = Sequence[tuple[Challenger, Trial]]


def changes(live: Config, default: Config, *, whole: bool) -> list[dict[str, Any]]:
    """What may be tried: the defaults all together, where the live settings are others, and each
    setting raised and lowered.

    Args:
        live: by what is learned now.
        default: the settings as they come.
        whole: whether the events log still begins at the beginning.
    """
    keys = [key for key in _FACTORS if whole or key not in _COUNTED]
    now, usual = values_of(live, keys), values_of(default, keys)
    found = [{key: usual[key] for key in keys if usual[key] != now[key]}]
    for key in keys:
        factor = _FACTORS[key]
        found += [{key: _times(now[key], factor)}, {key: _times(now[key], 1.0 / factor)}]
    return [change for change in found if _differs(live, change)]


def propose(
    candidates: Sequence[Mapping[str, Any]], tried: Tried, promotion: int, through: int, most: int
) -> tuple[dict[str, Any], Proposed, int] | None:
    """The next challenger: its settings, its place, and how many events it is compared on.

    ``None`` where a round has just ended without a promotion: the next one begins ``most``
    events after it.

    Args:
        candidates: the settings that may be tried around the live ones.
        tried: all challengers so far.
        promotion: offset of the promotion that the live settings come from.
        through: the last offset that the live model was tested through.
        most: comparisons after which the gate gives up.
    """
    ours = [
        (one, trial, one.proposed)
        for one, trial in tried
        if one.proposed is not None and one.proposed.promotion == promotion
    ]
    round = max((place.round for *_, place in ours), default=1)
    rungs: dict[int, dict[str, float]] = {}
    for challenger, trial, place in ours:
        if place.round == round:
            lift = trial.lift.value if trial.lift else None
            lifts = rungs.setdefault(place.rung, {})
            lifts[_key(challenger.settings)] = -inf if lift is None else lift
    contenders, rung = [dict(one) for one in candidates], 0
    while contenders:
        events = min(FIRST_EVENTS * 2**rung, most)
        done = rungs.get(rung, {})
        for one in contenders:
            if _key(one) not in done:
                # The defaults change much at once, and are right more often than a guess.
                at_once = rung == 0 and len(one) > len(contenders[-1])
                return one, Proposed(promotion, round, rung), most if at_once else events
        if events == most:
            break
        ranked = sorted(contenders, key=lambda one: -done[_key(one)])
        better = [one for one in ranked if done[_key(one)] > 0.0]
        contenders, rung = better[: (len(ranked) + 1) // 2], rung + 1
    ended = max((trial.compared_through for _, trial, _ in ours), default=0)
    if not candidates or through < ended + most:
        return None
    return dict(candidates[0]), Proposed(promotion, round + 1, 0), min(FIRST_EVENTS, most)


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, list):
        return [_times(one, factor) for one in value]
    if isinstance(value, int):
        return max(round(value * factor), 1)
    return float(f"{value * factor:.4g}")


def _differs(live: Config, change: Mapping[str, Any]) -> bool:
    try:
        return overridden(live, change) != live
    except ConfigError:
        return False
