"""How sure a number is: 95 % intervals of proportions and means."""

from __future__ import annotations

from math import sqrt

from headwater.types import Metric

_Z = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


def wilson(successes: int, n: int, scale: float = 1.0) -> Metric:
    """``scale`` times a proportion, with Wilson's score interval (JASA 22, 1927).

    Unlike the normal interval it stays within the range and is honest for few
    successes, which is what click-through rates have; nothing is known for n = 0.

    >>> metric = wilson(5, 10)
    >>> round(metric.low, 4), metric.value, round(metric.high, 4)
    (0.2366, 0.5, 0.7634)
    """
    if n == 0:
        return Metric(0.0, 0.0, scale, 0)
    share = successes / n
    spread = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    shrunk = 1 + _Z**2 / n
    middle = share + _Z**2 / (2 * n)
    # At 0 and n successes one end is the share itself; rounding may not push it past.
    low = min(share, max(0.0, (middle - spread) / shrunk))
    high = max(share, min(1.0, (middle + spread) / shrunk))
    return Metric(scale * share, scale * low, scale * high, n)


def normal(
    total: float, squares: float, n: int, high: float = float("inf"), low: float = 0.0
) -> Metric:
    """The mean of n values in [``low``, ``high``] from their sum and sum of squares.

    The interval is mean ± 1.96 s / √n, cut to the values' range; from a single
    value no spread can be told, and it has no width.
    """
    mean = total / n
    variance = max(0.0, squares - n * mean * mean) / max(1, n - 1)
    spread = _Z * sqrt(variance / n)
    return Metric(mean, max(low, mean - spread), min(high, mean + spread), n)
