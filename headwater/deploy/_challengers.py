"""The challengers of a data folder: what they are to be, how they do, what became of them.

Each has a folder of its number. Every file in it has one writer: who adds the challenger, who
retires it, or the role that runs it; so any process may do its part at any time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headwater.config import Config, overridden, values_of
from headwater.deploy._snapshots import Snapshots
from headwater.deploy._versions import sync_folder
from headwater.errors import ConfigError, InvalidInput, SnapshotError
from headwater.types import Canary, Challenger, Policy, Promotion, Proposed, Trial, Version

CHALLENGERS = "challengers"
"""The folder's name, in the data folder."""

KEPT = 200
"""Challengers that are listed; the oldest of those that have ended make place."""

MAX_DELTA = 1.0

MAX_CANARY = 0.5
"""Largest share of the users: beyond it the challenger would be what most of them get."""

_CHALLENGER, _TRIAL, _RETIREMENT = "challenger.json", "trial.json", "retirement.json"
_CANARY = "canary.json"

T = TypeVar("T", bound=msgspec.Struct)


class Retirement(msgspec.Struct, frozen=True):
    """Somebody's wish that a challenger ends."""

    by: str
    why: str


def challenging(config: Config, live: Version | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A challenger's settings by dotted name, those that promotions brought to the live model too.

    Args:
        config: the configured settings.
        live: what is live, if there is a version yet.
        changes: what is to be different.

    Raises:
        InvalidInput: ``settings``: one isn't allowed, or nothing would be different.
    """
    before = live.lineage.settings if live else {}
    try:
        own = overridden(config, {**before, **changes})
    except ConfigError as error:
        raise InvalidInput("settings", str(error)) from None
    values = values_of(own, {**before, **changes})
    if tables := [key for key, value in values.items() if isinstance(value, dict)]:
        raise InvalidInput("settings", f"names tables, {', '.join(tables)}; name what is in them")
    if own == overridden(config, before):
        raise InvalidInput("settings", "are those of the live model; change one at least")
    return values


def in_canary(canary: Canary, user_id: str) -> bool:
    """Whether a user gets the challenger's lists: by a hash of the id, and of the challenger's
    number, so that it isn't always the same users.

    >>> canary = Canary(7, {}, 0.1)
    >>> sum(in_canary(canary, f"user-{n}") for n in range(10_000)) / 10_000
    0.1041
    """
    named = f"{canary.number}/{user_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(named, digest_size=8).digest()) < canary.share * 2.0**64


def ordered(by: str, why: str) -> str:
    """Who wanted something, and why where that was said.

    >>> ordered("ada", "too slow"), ordered("ada", "")
    ('ada: too slow', 'ada')
    """
    return f"{by}: {why}" if why else by


class Challengers:
    """The challengers in a folder, which needn't be there. Reading never writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        settings: Mapping[str, Any],
        *,
        policy: Policy,
        delta: float,
        by: str,
        why: str,
        events: int | None = None,
        proposed: Proposed | None = None,
        canary: float = 0.0,
    ) -> Challenger:
        """A new one, which waits for its turn; its settings are what ``challenging`` gave.

        Raises:
            InvalidInput: ``delta`` isn't from 0 to 1, or is 0 with "not-worse", or ``canary`` isn't
                from 0 to 0.5.
        """
        if not (isfinite(delta) and 0.0 <= delta <= MAX_DELTA):
            raise InvalidInput("delta", f"must be from 0 to {MAX_DELTA:g}, a share of NDCG@10")
        if policy == "not-worse" and not delta:
            # A refresh as good as the live model would learn beside it and be retired in the end.
            raise InvalidInput(
                "delta", "must be above 0 with not-worse, for nothing is shown by less; 0.02 is 2 %"
            )
        if not (isfinite(canary) and 0.0 <= canary <= MAX_CANARY):
            raise InvalidInput("canary", f"must be from 0 to {MAX_CANARY:g}, a share of the users")
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = max(self._numbers(), default=0) + 1
            with suppress(FileExistsError):
                self._of(number).mkdir()
                break
        challenger = Challenger(
            number, dict(settings), policy, delta, by, why, time.time(), events, proposed, canary
        )
        self._write(number, _CHALLENGER, challenger)
        self._forget_oldest()
        return challenger

    def listed(self) -> list[tuple[Challenger, Trial]]:
        """All of them in order, each with how it does."""
        found = []
        for number in self._numbers():
            challenger = self._read(number, _CHALLENGER, Challenger)
            if challenger is not None:
                found.append((challenger, self._trial(number)))
        return found

    def active(self) -> tuple[Challenger, Trial] | None:
        """The one that runs, or is to: the first that hasn't ended."""
        going = (one for one in self.listed() if one[1].ended_at is None)
        return next(going, None)

    def get(self, number: int) -> tuple[Challenger, Trial]:
        """One that hasn't ended.

        Raises:
            InvalidInput: there is none of that number, or it has ended.
        """
        challenger = self._read(number, _CHALLENGER, Challenger)
        if challenger is None:
            raise InvalidInput("challenger", f"is {number}, and there is none of that number")
        trial = self._trial(number)
        if trial.ended_at is not None:
            raise InvalidInput("challenger", f"is {number}, which was {trial.state}")
        return challenger, trial

    def record(self, number: int, trial: Trial) -> None:
        """Writes down how a challenger does; for the role that runs it."""
        self._write(number, _TRIAL, trial)

    def retire(self, number: int, by: str, why: str) -> None:
        """Wants a challenger to end without being promoted.

        Raises:
            InvalidInput: as ``get``.
        """
        self.get(number)
        self._write(number, _RETIREMENT, Retirement(by, why))

    def retirement(self, number: int) -> Retirement | None:
        """What ``retire`` was given, if it was."""
        return self._read(number, _RETIREMENT, Retirement)

    def snapshots(self, number: int) -> Path:
        """Where a challenger keeps its states."""
        return self._of(number) / "snapshots"

    def updates(self, number: int) -> Path:
        """Where a challenger with a canary publishes what it learns."""
        return self._of(number) / "updates" / "updates.db"

    def clear(self, number: int) -> None:
        """Deletes a challenger's states; it would begin anew."""
        for folder in (self.snapshots(number), self.updates(number).parent):
            shutil.rmtree(folder, ignore_errors=True)

    def canary(self) -> Canary | None:
        """The challenger whose lists are served to a share of the users, if there is one."""
        path = self.folder / _CANARY
        return self._decoded(path, Canary, path)

    def begin_canary(self, canary: Canary) -> None:
        """From now on whoever serves may take a share of the users to the challenger."""
        self._store(self.folder / _CANARY, canary)

    def end_canary(self) -> None:
        """From now on the live model serves everybody; may be repeated."""
        (self.folder / _CANARY).unlink(missing_ok=True)

    def promotion(self, number: int, by: str, why: str) -> Promotion:
        """The order to promote a challenger; given again, it is the same one.

        Raises:
            InvalidInput: as ``get``, or it has no state yet.
        """
        challenger, _ = self.get(number)
        snapshots = Snapshots(self.snapshots(number), keep=1)
        with suppress(SnapshotError):
            if any(snapshots.manifest(path) for path in snapshots.paths()):
                return Promotion(f"challenger-{number}", number, challenger.settings, by, why)
        raise InvalidInput(
            "challenger",
            f"is {number}, which has no snapshot yet; it writes one every deploy.snapshot_events",
        )

    def _trial(self, number: int) -> Trial:
        trial = self._read(number, _TRIAL, Trial) or Trial()
        if trial.ended_at is None and (wish := self.retirement(number)):
            return msgspec.structs.replace(trial, state="retired", why=ordered(wish.by, wish.why))
        return trial

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())

    def _forget_oldest(self) -> None:
        ended = [one.number for one, trial in self.listed() if trial.ended_at is not None]
        for number in ended[: max(len(self._numbers()) - KEPT, 0)]:
            shutil.rmtree(self._of(number), ignore_errors=True)

    def _of(self, number: int) -> Path:
        return self.folder / f"{number:04d}"

    def _read(self, number: int, name: str, kind: type[T]) -> T | None:
        return self._decoded(self._of(number) / name, kind, self._of(number))

    def _decoded(self, path: Path, kind: type[T], damaged: Path) -> T | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise SnapshotError(f"{path} can't be read: {error}; delete {damaged}") from None

    def _write(self, number: int, name: str, what: msgspec.Struct) -> None:
        self._store(self._of(number) / name, what)

    def _store(self, path: Path, what: msgspec.Struct) -> None:
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(msgspec.json.encode(what))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
