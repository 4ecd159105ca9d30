"""How much a micro-batch gets when more wait than can be learned from in full.

The cost of a gradient step is that of its examples, the cost of counting next to nothing. So
where n events wait, more than ``train.batch_events`` = b, a micro-batch takes n of them, up to
b / ``least_gradient``, and the gradient takes the share g = b / n: a step costs what it always
does, and covers more of the stream. The share that is predicted falls faster, with a power of g
that arrives at ``least_evaluated`` where g arrives at ``least_gradient``. There nothing is
replayed either.

What was imported waits for nobody, so its gradient is never sampled. But each of its events is
ranked for the mixture's lists and for metrics alone, which takes more than half of the time, and
behind the first ``train.history_in_full`` entries the share that is predicted falls as the log
grows, to ``least_evaluated``.

Samples are uniform, so the mean loss of a sample is that of the batch, and no example has to
be weighed; ``Sample`` of ``train`` says what makes up for there being fewer steps. An event is in
every share above a number that its offset and the seed give it.
"""

from __future__ import annotations

from math import log

from headwater.config import Train
from headwater.train import uniforms
from headwater.types import Flags, Longs, Pace

_SALT = 0x70616365
"""Apart from the draws of ``imbalance``, which hash seed and offset as well."""


def events_of(behind: int, settings: Train) -> int:
    """How many events the next micro-batch takes at most, with ``behind`` of them waiting."""
    most = round(settings.batch_events / settings.least_gradient)
    if settings.pace == "full":
        return settings.batch_events
    return most if settings.pace == "least" else min(max(behind, settings.batch_events), most)


def pace_of(through: int, behind: int, settings: Train, *, imported: bool = False) -> Pace | None:
    """What the micro-batch that ends at ``through`` gets; ``None`` for everything."""
    if imported and settings.pace == "load":
        return _history_pace_of(through, settings)
    share = settings.batch_events / events_of(behind, settings)
    if share == 1.0:
        return None
    share = max(share, settings.least_gradient)
    power = log(settings.least_evaluated) / log(settings.least_gradient)
    return Pace(
        through=through,
        gradient=round(share, 4),
        evaluated=max(round(share**power, 4), settings.least_evaluated),
        replay=share > settings.least_gradient,
    )


def _history_pace_of(through: int, settings: Train) -> Pace | None:
    share = max(min(settings.history_in_full / max(through, 1), 1.0), settings.least_evaluated)
    if share == 1.0 or settings.least_gradient == 1.0:
        return None
    return Pace(through=through, gradient=1.0, evaluated=round(share, 4), replay=True)


def sampled(seed: int, offsets: Longs, share: float) -> Flags:
    """(B,) which events are in a sample."""
    flags: Flags = uniforms(seed ^ _SALT, offsets, 1)[:, 0] < share
    return flags
