"""The history of structural versions: which one was live, which was held, which rolled back."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from headwater.errors import SnapshotError
from headwater.types import Version

_DECODER = msgspec.json.Decoder(Version)


class Versions:
    """An append-only file of ``Version`` lines; the newest line of a number tells its state.

    Reading never writes. One writer at a time: the trainer that holds the lease.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, version: Version) -> None:
        """Appends a line, durably; a torn line that a crash left at the end is cut off first.

        Raises:
            SnapshotError: the version holds a number that isn't finite.
        """
        line = msgspec.json.encode(version, order="deterministic")
        try:
            _DECODER.decode(line)
        except msgspec.ValidationError as error:
            raise SnapshotError(f"version {version.number} can't be recorded: {error}") from None
        whole = self._whole_length()
        with self.path.open("ab") as file:
            file.truncate(whole)
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def history(self) -> list[Version]:
        """Every line, oldest first; a torn last line isn't one.

        Raises:
            SnapshotError: a line before the end is damaged.
        """
        if not self.path.exists():
            return []
        versions = []
        lines = self.path.read_bytes()[: self._whole_length()].splitlines()
        for number, line in enumerate(lines, start=1):
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
        newest: dict[int, Version] = {}
        for version in self.history():
            newest.pop(version.number, None)
            newest[version.number] = version
        live = [version for version in newest.values() if version.state == "live"]
        return live[-1] if live else None

    def _whole_length(self) -> int:
        data = self.path.read_bytes() if self.path.exists() else b""
        return data.rfind(b"\n") + 1


def sync_folder(folder: Path) -> None:
    """Makes a created or renamed name in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
