"""Which promotion is to be done, and the state that it brings."""

from __future__ import annotations

from pathlib import Path

from headwater.deploy import Challengers, Manifest, Shape, Snapshots
from headwater.errors import SnapshotError
from headwater.evaluate import MIXTURE
from headwater.log import EventsLog
from headwater.loop._fold import Fold
from headwater.loop._stages import Stages
from headwater.types import Before, Metrics, Record, Rollback, State


def due(events: EventsLog, fold: Fold, after: int) -> Record | None:
    """The newest promotion behind offset ``after``, unless a rollback has set it aside."""
    orders = [r for r in events.promotions(after) if not fold.is_set_aside(r.offset)]
    return orders[-1] if orders else None


def ended(version: int, stages: Stages) -> Before:
    """A version that is about to lose its place, with the metrics of its lists by segment."""
    metrics = [
        Metrics("before", one.segment, {k: v for k, v in one.values.items() if _is_served(k)})
        for one in stages.evaluator.metrics("newest")
    ]
    return Before(version, stages.fold.offset, metrics)


def _is_served(name: str) -> bool:
    return name.startswith(f"{MIXTURE}.")


def shadowed(
    challengers: Path, number: int, wanted: Shape, events: EventsLog
) -> tuple[State, Manifest]:
    """The newest state of a challenger that holds nothing which was rolled back.

    Raises:
        SnapshotError: there is none, or its shape isn't the one that its settings have by now.
    """
    snapshots = Snapshots(Challengers(challengers).snapshots(number), keep=1)
    before: int | None = None
    while found := snapshots.newest(lambda _: wanted, before):
        state, manifest = found
        unknown = [record.entry for record in events.rollbacks(int(state["rollbacks.through"]))]
        firsts = [order.first for order in unknown if isinstance(order, Rollback)]
        if min(firsts, default=manifest.offset + 1) > manifest.offset:
            return found
        before = min(firsts)
    raise SnapshotError(f"{snapshots.directory} holds no state that could be promoted")
