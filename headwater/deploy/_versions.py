"""The history of structural versions: which one was live, which was held, which rolled back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headwater.errors import SnapshotError
from headwater.types import Version

VERSIONS = "versions.jsonl"
"""The file's name, in the folder of the snapshots."""

_MOST = 1_000
"""Lines, some 0.5 MB, which every reader decodes. Once there are more, half as many versions stay:
three weeks of a snapshot an hour."""

_DECODER = msgspec.json.Decoder(Version)


class Versions:
    """A file to which ``Version`` lines are appended; the newest line of a number tells its state.

    Reading never writes. One writer at a time: the trainer that holds the lease.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, version: Version) -> None:
        """Appends a line, durably; a torn line that a crash left at the end is cut off first.

        Where there are too many, the newest versions stay, and of the others those that are needed.

        Raises:
            SnapshotError: the version holds a number that isn't finite.
        """
        line = msgspec.json.encode(version, order="deterministic")
        try:
            _DECODER.decode(line)
        except msgspec.ValidationError as error:
            raise SnapshotError(f"version {version.number} can't be recorded: {error}") from None
        whole = len(self._whole())
        with self.path.open("ab") as file:
            file.truncate(whole)
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)
        if len(self.history()) > _MOST:
            self._forget_oldest()

    def replace(self, versions: Sequence[Version]) -> None:
        """Puts these lines in the place of all, durably; a crash leaves the ones or the others."""
        part = self.path.with_name(f"{self.path.name}.part")
        with part.open("wb") as file:
            for version in versions:
                file.write(msgspec.json.encode(version, order="deterministic") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
        sync_folder(self.path.parent)

    def history(self) -> list[Version]:
        """Every line, oldest first; a torn last line isn't one.

        Raises:
            SnapshotError: a line before the end is damaged.
        """
        versions = []
        for number, line in enumerate(self._whole().splitlines(), start=1):
            try:
                versions.append(_DECODER.decode(line))
            except msgspec.DecodeError as error:
                raise SnapshotError(
                    f"{self.path}, line {number} is damaged ({error}); "
                    "restore the file from a copy, or delete the line"
                ) from None
        return versions

    def live(self) -> Version | None:
        """The version that is live: of those whose newest state says so, the last to become it."""
        live = [version for version in self._newest() if version.state == "live"]
        return live[-1] if live else None

    def listed(self) -> list[Version]:
        """Every version in its newest state; one that was live before is kept.

        Without its snapshot it can't be returned to, and is dropped; also the one that is live,
        of which a backup may hold an interim snapshot alone.
        """
        live = self.live()
        return [
            msgspec.structs.replace(version, state=self._state(version, live))
            for version in sorted(self._newest(), key=lambda version: version.number)
        ]

    def next_number(self) -> int:
        return max((version.number for version in self.history()), default=0) + 1

    def roll_back(self, first: int) -> None:
        """Records that the versions which hold an event from offset ``first`` on are no more."""
        for version in self._newest():
            if version.state != "rolled_back" and version.offset >= first:
                self.add(msgspec.structs.replace(version, state="rolled_back"))

    def _forget_oldest(self) -> None:
        versions = self._newest()
        needed = [
            self.live(),
            # From the highest numbers the next ones are counted.
            max(versions, key=lambda version: version.number),
            max(versions, key=lambda version: version.version),
        ]
        old, new = versions[: -_MOST // 2], versions[-_MOST // 2 :]
        self.replace([*(v for v in old if v in needed or self._is_there(v)), *new])

    def _newest(self) -> list[Version]:
        newest: dict[int, Version] = {}
        for version in self.history():
            newest.pop(version.number, None)
            newest[version.number] = version
        return list(newest.values())

    def _state(self, version: Version, live: Version | None) -> str:
        if version.state != "live":
            return version.state
        if not self._is_there(version):
            return "dropped"
        return "live" if version == live else "kept"

    def _is_there(self, version: Version) -> bool:
        return (self.path.parent / version.snapshot).is_file()

    def _whole(self) -> bytes:
        data = self.path.read_bytes() if self.path.exists() else b""
        return data[: data.rfind(b"\n") + 1]


def sync_folder(folder: Path) -> None:
    """Makes a created or renamed name in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
