"""``headwater challenger`` and ``promote``: what operators want of challengers; no server needed.

They wait in the data folder; the server's role for them begins within a second or so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from headwater.config import Config
from headwater.deploy import CHALLENGERS, VERSIONS, Challengers, Versions, challenging
from headwater.errors import ConfigError, HeadwaterError, InvalidInput
from headwater.ingest import reason
from headwater.log.sqlite import SqliteUpdatesLog
from headwater.roles.bulk import existing_log
from headwater.roles.versions import WAIT_SECONDS, newest_epoch, who
from headwater.types import Challenger, Policy


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings by dotted name from KEY=VALUE; a value is JSON, or else text.

    Raises:
        ConfigError: one has no key or no ``=``.
    """
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"--set {pair}: write --set KEY=VALUE, as in sequence.layers=2")
        try:
            settings[key] = json.loads(text)
        except ValueError:
            settings[key] = text
    return settings


def add(
    data: Path,
    config: Config,
    settings: Mapping[str, Any],
    policy: Policy,
    delta: float,
    why: str,
    canary: float = 0.0,
) -> Challenger:
    """Adds a challenger with these settings over the live ones.

    Raises:
        HeadwaterError: the folder holds no events log, or the challenger makes no sense.
    """
    existing_log(data).close()
    live = Versions(data / "snapshots" / VERSIONS).live()
    try:
        wanted = challenging(config, live, settings)
        return Challengers(data / CHALLENGERS).add(
            wanted, policy=policy, delta=delta, by=who(), why=reason(why), canary=canary
        )
    except InvalidInput as error:
        flag = {"settings": "--set", "delta": "--by"}.get(error.field, f"--{error.field}")
        raise HeadwaterError(f"{flag} {error.reason}") from None


def retire(data: Path, number: int, why: str) -> None:
    """Ends a challenger without a promotion.

    Raises:
        HeadwaterError: there is none of that number, or it has ended.
    """
    try:
        Challengers(data / CHALLENGERS).retire(number, who(), reason(why))
    except InvalidInput as error:
        raise HeadwaterError(str(error)) from None


def promote(data: Path, number: int, why: str) -> tuple[int, float | None]:
    """Orders a promotion; how many entries the challenger lacks, which the trainer learns first,
    and the seconds until it had done it, if it did.

    Raises:
        HeadwaterError: there is no such challenger, or it has no snapshot yet.
    """
    with (
        closing(existing_log(data)) as events,
        closing(SqliteUpdatesLog(data / "updates.db")) as updates,
    ):
        try:
            challengers = Challengers(data / CHALLENGERS)
            order = challengers.promotion(number, who(), reason(why))
            lacks = max(events.end() - challengers.get(number)[1].trained_through, 0)
        except InvalidInput as error:
            raise HeadwaterError(str(error)) from None
        started, before = time.monotonic(), newest_epoch(updates)
        events.append([order], time.time())
        while (waited := time.monotonic() - started) < WAIT_SECONDS:
            if newest_epoch(updates) > before:
                return lacks, waited
            time.sleep(0.02)
    return lacks, None


def listed(data: Path) -> list[dict[str, Any]]:
    """Every challenger beside how it does.

    Raises:
        HeadwaterError: the folder holds no events log.
    """
    existing_log(data).close()
    return [
        {**msgspec.to_builtins(challenger), "trial": msgspec.to_builtins(trial)}
        for challenger, trial in Challengers(data / CHALLENGERS).listed()
    ]


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """What ``listed`` found, for people."""
    names = ("number", "added", "by", "settings", "asked", "state", "events", "NDCG@10", "lift", "")
    table = Table(box=None, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    for one in found:
        trial = one["trial"]
        lift = trial["lift"] or {"n": 0, "challenger": 0.0, "value": None}
        table.add_row(
            str(one["number"]),
            f"{datetime.fromtimestamp(one['created_at'], UTC):%Y-%m-%d %H:%M}",
            one["by"],
            ", ".join(f"{key} = {json.dumps(value)}" for key, value in one["settings"].items()),
            f"{one['policy']} by {one['delta']:.1%}"
            + (f", canary {one['canary']:.0%}" if one["canary"] else ""),
            trial["state"],
            f"{lift['n']:,}",
            f"{lift['challenger']:.4f}",
            _interval(lift),
            trial["why"],
        )
    return table


def _interval(lift: Mapping[str, Any]) -> str:
    if lift["value"] is None:
        return ""
    low, high = ("?" if lift[end] is None else f"{lift[end]:+.1%}" for end in ("low", "high"))
    return f"{lift['value']:+.1%} ({low} to {high})"
