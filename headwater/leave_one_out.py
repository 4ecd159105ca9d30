"""``headwater evaluate --protocol leave-one-out``: the offline protocol, through the same loop.

Of each user with at least three wanted events the newest of those is the test, the one before
it the validation, and the rest is learned as ``headwater import --backfill`` learns a
history. The test item is ranked by the recommender that serves, among all items that
the user may still be shown.

The protocol isn't one of a stream: it learns what others did after a test event.
Its figures are for comparison with published ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from headwater.config import Config, effective
from headwater.errors import UnreadableFile
from headwater.evaluate import Report, compare
from headwater.ingest import Interactions, read_interactions
from headwater.log.memory import MemoryEventsLog
from headwater.loop import Backfill, Fold, Progress
from headwater.model import EXPERTS
from headwater.preprocess import joined, taken
from headwater.types import Batch, Bytes, Longs

TRAINING, VALIDATION, TEST, LEFT_OUT = range(4)

_CHUNK = 1_000
"""Events that are folded, and lists that are ranked, at a time."""
_COLUMNS = (
    *("user_codes", "item_codes", "timestamps", "type_codes", "values"),
    *("session_codes", "recommendation_codes", "index"),
)


def leave_one_out(interactions: Interactions, config: Config, progress: Progress) -> dict[str, Any]:
    """Runs the protocol.

    Args:
        interactions: the events, those of each user in order.
        config: all settings; ``backfill`` says how is learned.
        progress: told how far it is.

    Returns:
        ``events``, ``seconds``, ``config``, ``backfill`` (what the passes did; its figures are of
        validation events), and as ``headwater replay --json`` has them, but of the test events:
        ``all``, ``experts``, ``segments``.

    Raises:
        UnreadableFile: no user has three wanted events.
    """
    started = time.perf_counter()
    roles = parts(interactions, config)
    if TEST not in roles:
        raise UnreadableFile(
            f"{interactions.path} has no user with three wanted events, so none can be left out"
        )
    kept = np.flatnonzero(roles != LEFT_OUT)
    interactions, roles = _taken(interactions, kept), roles[kept]
    fold = Fold(config)
    backfill = Backfill(config, fold, progress)
    held: dict[int, list[Batch]] = {VALIDATION: [], TEST: []}
    log = MemoryEventsLog()
    for start in range(0, len(interactions), _CHUNK):
        log.append(interactions.events(start, start + _CHUNK), time.time())
        batch, _ = fold.batch(log.read(fold.offset, _CHUNK))
        role = roles[start : start + _CHUNK]
        backfill.count(taken(batch, np.flatnonzero(role == TRAINING)))
        for which, batches in held.items():
            batches.append(taken(batch, np.flatnonzero(role == which)))
        progress("counting", start + len(batch), len(interactions), "")
    validation, test = joined(held[VALIDATION]), joined(held[TEST])
    done = backfill.run(validation)
    fold.model.count(validation)
    report = _tested(fold, test, progress)
    results = report.results(int(fold.eligible().sum()), second_half_from=0)
    del results["second_half"]
    return {
        "protocol": "leave-one-out",
        "events": len(interactions),
        "seconds": round(time.perf_counter() - started, 3),
        "config": effective(config),
        "backfill": asdict(done),
        **results,
    }


def parts(interactions: Interactions, config: Config) -> Bytes:
    """(N,) what each event is for: ``TRAINING``, ``VALIDATION``, ``TEST`` or ``LEFT_OUT``.

    Events that can be no target, such as dislikes and impressions, are for training, or left out
    where they come after the user's validation event.
    """
    kinds = config.event_types
    wanted_types = [name in kinds and kinds[name].polarity > 0 for name in interactions.type_names]
    targets = np.flatnonzero(np.array(wanted_types)[interactions.type_codes])
    users = interactions.user_codes
    order = targets[np.argsort(users[targets], kind="stable")]
    ends = np.append(np.flatnonzero(np.diff(users[order])) + 1, len(order))
    sizes = np.diff(ends, prepend=0)
    ends = ends[sizes >= 3]
    roles = np.zeros(len(interactions), np.uint8)
    roles[order[ends - 1]] = TEST
    validation = order[ends - 2]
    roles[validation] = VALIDATION
    until = np.full(len(interactions.user_ids), len(interactions))
    until[users[validation]] = validation
    later = np.arange(len(interactions)) > until[users]
    roles[later & (roles == TRAINING)] = LEFT_OUT
    return roles


def read(path: Path, order: str | None, mapping: Mapping[str, str], config: Config) -> Interactions:
    """Interactions in order of time, or those of each user in order of a column.

    Ties are in file order. With ``order``, the times of the file stay the events' times, none
    before that of the event before it; where it has none, places in the column's order are.

    Raises:
        UnreadableFile: the file can't be read, or hasn't the column.
    """
    found = read_interactions(
        path, mapping=mapping, event_types=config.event_types.keys(), order=order
    )
    if order is None:
        return found
    by_user = np.argsort(found.user_codes, kind="stable")
    times = found.timestamps[by_user]
    starts = np.flatnonzero(np.diff(found.user_codes[by_user], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(times)], strict=True):
        times[start:stop] = np.maximum.accumulate(times[start:stop])
    return _taken(
        replace(_taken(found, by_user), timestamps=times), np.argsort(times, kind="stable")
    )


def table(results: Mapping[str, Any]) -> Table:
    """The figures of the test events, the mixture first."""
    names = {"ndcg@10": "NDCG@10", "hit_rate@10": "HR@10", "mrr@10": "MRR@10", "recall@20": "R@20"}
    out = Table(title=f"Leave-one-out, {results['all']['n']:,} users", title_justify="left")
    out.add_column("model", no_wrap=True)
    for header in names.values():
        out.add_column(header, justify="right")
    for model, figures in {"mixture (served)": results["all"], **results["experts"]}.items():
        values = [figures[name] for name in names]
        out.add_row(model, *("–" if value is None else f"{value:.4f}" for value in values))
    return out


def _taken(interactions: Interactions, rows: Longs) -> Interactions:
    return replace(interactions, **{name: getattr(interactions, name)[rows] for name in _COLUMNS})


def _tested(fold: Fold, test: Batch, progress: Progress) -> Report:
    report = Report(EXPERTS)
    withheld = fold.withheld()
    events = fold.model.popularity.events
    for start in range(0, len(test), _CHUNK):
        batch = taken(test, np.arange(start, min(start + _CHUNK, len(test))))
        ranking = fold.recommender.rank(batch.contexts, withheld)
        report.add(compare(EXPERTS, batch, ranking, events, int(events.sum())))
        progress("testing", start + len(batch), len(test), "")
    return report
