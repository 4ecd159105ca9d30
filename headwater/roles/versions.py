"""``headwater versions``, ``rollback``, ``undo`` and ``resume``: orders go through the events log.

So they need no server: a trainer that runs acts at once, and one that doesn't when it
starts.
"""

from __future__ import annotations

import getpass
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from headwater.deploy import VERSIONS, Versions, rollback_to, set_aside
from headwater.errors import HeadwaterError, InvalidInput
from headwater.ingest import reason
from headwater.log.sqlite import SqliteUpdatesLog
from headwater.roles.bulk import existing_log
from headwater.types import Entry, Resume, Rollback

WAIT_SECONDS = 10.0
"""Longest wait for a trainer to act."""


def listed(data: Path) -> dict[str, Any]:
    """The versions, and every order with where and when it was given.

    Raises:
        HeadwaterError: the folder holds no events log.
    """
    with closing(existing_log(data)) as events:
        orders = {
            "rollbacks": events.rollbacks(0),
            "promotions": events.promotions(0),
            "resumes": events.resumes(0),
        }
    versions = [msgspec.to_builtins(version) for version in _versions(data).listed()]
    return {
        "versions": versions,
        **{
            name: [{"offset": r.offset, "at": r.received_at, **_fields(r.entry)} for r in records]
            for name, records in orders.items()
        },
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """What ``listed`` found, for people."""
    names = (
        "number",
        "version",
        "epoch",
        "learned",
        "kept at",
        "state",
        "NDCG@10",
        "of popularity",
    )
    versions = Table(*names, box=None, header_style="bold")
    for one in found["versions"]:
        figures = (one["metrics"].get(f"{model}.ndcg@10") for model in ("mixture", "popularity"))
        versions.add_row(
            str(one["number"]),
            str(one["version"]),
            str(one["epoch"]),
            f"{one['offset']:,}",
            _at(one["created_at"]),
            one["state"],
            *("" if figure is None else _measured(figure) for figure in figures),
        )
    promotions = Table(
        *("promoted at", "challenger", "settings", "by", "why"), box=None, header_style="bold"
    )
    for one in found["promotions"]:
        settings = ", ".join(f"{key} = {value}" for key, value in one["settings"].items())
        undone = any(r["first"] <= one["offset"] <= r["through"] for r in found["rollbacks"])
        why = " ".join(filter(None, (one["why"], "(rolled back)" if undone else "")))
        promotions.add_row(_at(one["at"]), str(one["challenger"]), settings, one["by"], why)
    headers = ("rolled back at", "to", "set aside", "by", "why")
    rollbacks = Table(*headers, box=None, header_style="bold")
    for one in found["rollbacks"]:
        aside = f"{one['first']:,} to {one['through']:,}"
        rollbacks.add_row(_at(one["at"]), str(one["to"]), aside, one["by"], one["why"])
    resumes = Table(*("resumed at", "by", "why"), box=None, header_style="bold")
    for one in found["resumes"]:
        resumes.add_row(_at(one["at"]), one["by"], one["why"])
    return [versions, *(table for table in (promotions, rollbacks, resumes) if table.row_count)]


def roll_back(data: Path, to: int | None, why: str) -> tuple[Rollback, float | None]:
    """Orders a rollback; also returns the seconds until the trainer had done it, if it did.

    Raises:
        HeadwaterError: the folder holds no events log, or no such version is kept.
    """
    with (
        closing(existing_log(data)) as events,
        closing(SqliteUpdatesLog(data / "updates.db")) as updates,
    ):
        try:
            order = rollback_to(
                _versions(data).listed(), to, through=events.end(), by=who(), why=reason(why)
            )
        except InvalidInput as error:
            raise HeadwaterError(f"--{error.field} {error.reason}") from None
        started = time.monotonic()
        before = newest_epoch(updates)
        events.append([order], time.time())
        while (waited := time.monotonic() - started) < WAIT_SECONDS:
            if newest_epoch(updates) > before:
                return order, waited
            time.sleep(0.02)
    return order, None


def undo(data: Path, rollback_id: str | None) -> tuple[Rollback, int]:
    """Appends again what a rollback set aside, by default the newest one; how many came anew.

    Raises:
        HeadwaterError: the folder holds no events log, there is no such rollback, or the log no
            longer holds what it set aside.
    """
    with closing(existing_log(data)) as events:
        orders = [record.entry for record in events.rollbacks(0)]
        wanted = [
            order
            for order in orders
            if isinstance(order, Rollback) and rollback_id in (None, order.rollback_id)
        ]
        if not wanted:
            raise HeadwaterError("there is no such rollback; `headwater versions --json` has them")
        order, new = wanted[-1], 0
        for found in set_aside(events, order):
            appended = events.append(found, time.time())
            new += sum(not one.duplicate for one in appended)
    return order, new


def resume(data: Path, why: str) -> int:
    """Ends a pause of learning; returns the order's offset.

    Raises:
        HeadwaterError: the folder holds no events log, or the reason is too long.
    """
    try:
        entries: list[Entry] = [Resume(who(), reason(why))]
    except InvalidInput as error:
        raise HeadwaterError(f"--{error.field} {error.reason}") from None
    with closing(existing_log(data)) as events:
        return events.append(entries, time.time())[0].offset


def _versions(data: Path) -> Versions:
    return Versions(data / "snapshots" / VERSIONS)


def newest_epoch(updates: SqliteUpdatesLog) -> int:
    newest = updates.read(max(updates.end() - 1, 0), 1)
    return newest[0].epoch if newest else 0


def _fields(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.structs.asdict(entry)
    return fields


def who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody at the command line"


def _measured(metric: dict[str, Any]) -> str:
    return f"{metric['value']:.4f} ({metric['low']:.4f} to {metric['high']:.4f})"


def _at(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}" if seconds else ""
