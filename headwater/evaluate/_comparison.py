"""Which of two models is better on the same events, told at any time and as often as one likes.

For each event both have a gain in [0, 1]: its NDCG@10 in the lists that either would have
served. With c and l of challenger and live, and a lift r, x = c - (1 + r) l has a conditional
mean of at most 0 while the challenger isn't better than the live one by r. Scaled to x >= -1,

    e(λ) = exp(λ Σx - ψ(λ) Σx²),  ψ(λ) = -log(1 - λ) - λ,  0 <= λ < 1

is then a supermartingale (Fan, Grama and Liu, 2015; the empirical-Bernstein boundary of Howard,
Ramdas, McAuliffe and Sekhon, *Time-uniform, nonparametric, nonasymptotic confidence sequences*,
2021, about 0), and so is its mean over a grid of λ. By Ville's inequality it passes 1 / α with
a probability of at most α, however long and often one looks, for dependent predictions too.

Six sums are all that is kept, from which every lift can be tested: those that aren't rejected
are the confidence sequence of the lift.
"""

from __future__ import annotations

from math import log
from typing import Literal

import numpy as np

from headwater.types import Comparison, Doubles, Lift

ALPHA = 0.01
"""Probability, at most, that a comparison is ever decided wrongly, and that the true lift is ever
outside its interval."""

_BETS = 0.9 * 0.5 ** np.arange(10.0)
"""λ: the best one is mean / variance of x, from large differences to ones of a thousandth."""
_COSTS = -np.log1p(-_BETS) - _BETS
_WIDEST = 4.0
"""Lifts beyond it aren't told apart."""
_STEPS = 40
"""Bisections to an end of the interval, to 1e-11."""

Verdict = Literal["better", "worse"]


def compared(sums: Comparison, challenger: Doubles, live: Doubles) -> Comparison:
    """The sums with n more events in them.

    Args:
        challenger: (n,) gains in [0, 1].
        live: (n,) those of the live model, for the same events.
    """
    return Comparison(
        n=sums.n + len(live),
        challenger=sums.challenger + float(challenger.sum()),
        live=sums.live + float(live.sum()),
        challenger_squares=sums.challenger_squares + float(challenger @ challenger),
        live_squares=sums.live_squares + float(live @ live),
        products=sums.products + float(challenger @ live),
    )


def lift(sums: Comparison, alpha: float = ALPHA) -> Lift:
    """By what share the challenger's gains are higher, with its confidence sequence.

    The ends are ``None`` where nothing within 400 % is excluded, and the lift where the live
    model has no gain yet.
    """
    bar = log(2.0 / alpha)
    return Lift(
        n=sums.n,
        challenger=sums.challenger / sums.n if sums.n else 0.0,
        live=sums.live / sums.n if sums.n else 0.0,
        value=sums.challenger / sums.live - 1.0 if sums.live else None,
        low=_end(sums, 1.0, bar),
        high=_end(sums, -1.0, bar),
    )


def verdict(sums: Comparison, margin: float, alpha: float = ALPHA) -> Verdict | None:
    """Whether the challenger's lift is shown to be above ``margin``, or to be below it: whether the
    margin is outside of what ``lift`` gives at the same ``alpha``.
    """
    bar = log(2.0 / alpha)
    if _evidence(sums, margin, 1.0) >= bar:
        return "better"
    return "worse" if _evidence(sums, margin, -1.0) >= bar else None


def _evidence(sums: Comparison, margin: float, sign: float) -> float:
    """Evidence, as log e, against "the lift is at most ``margin``", for a sign of -1 "at least"."""
    factor = 1.0 + margin
    scale = 1.0 / max(factor, 1.0)
    total = sign * scale * (sums.challenger - factor * sums.live)
    squares = scale**2 * (
        sums.challenger_squares - 2.0 * factor * sums.products + factor**2 * sums.live_squares
    )
    logs = _BETS * total - _COSTS * max(squares, 0.0)
    highest = float(logs.max())
    return highest + log(float(np.exp(logs - highest).mean()))


def _end(sums: Comparison, sign: float, bar: float) -> float | None:
    """The lowest lift that isn't rejected as too low, for a sign of -1 the highest likewise."""
    if not sums.live:
        return None
    middle = sums.challenger / sums.live - 1.0
    outer = max(-1.0, middle - _WIDEST) if sign > 0 else middle + _WIDEST
    if _evidence(sums, outer, sign) < bar:
        return None
    inner = middle
    for _ in range(_STEPS):
        half = (inner + outer) / 2.0
        if _evidence(sums, half, sign) >= bar:
            outer = half
        else:
            inner = half
    return outer
