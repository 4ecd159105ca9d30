"""A disk that may lose whatever was written since the last sync, as a power cut does.

Killing a process never tests a sync: what the kernel was given survives the
process. Here the database works on real files through SQLite's own VFS, and
beside each file its durable content is kept: what it held at its last sync.
After a power cut a file holds that, plus any part of what was written since.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import apsw

SECTOR = 512
"""Bytes that a disk writes as a whole."""

Image = dict[str, bytes]
"""File name -> content found after a power cut."""


class _Shadow:
    """The durable content of one file, and the changes that no sync has covered."""

    def __init__(self) -> None:
        self.durable: bytes | None = None
        self.changes: list[tuple[int, bytes | None]] = []  # (offset, data) or (size, None)

    def sync(self) -> None:
        self.durable = self.content(lambda: True)
        self.changes.clear()

    def content(self, survives: Callable[[], bool]) -> bytes:
        content = bytearray(self.durable or b"")
        for offset, data in self.changes:
            if data is None:
                if survives():
                    del content[offset:]
                continue
            for start in range(0, len(data), SECTOR):
                if survives():
                    part = data[start : start + SECTOR]
                    place = offset + start
                    content.extend(bytes(max(0, place + len(part) - len(content))))
                    content[place : place + len(part)] = part
        return bytes(content)


class LossyDisk(apsw.VFS):
    """A VFS that knows what a power cut would leave.

    ``at_sync`` is called just before and just after every sync. A disk that
    ``lies`` says that it synced and didn't.
    """

    def __init__(self, name: str, *, lies: bool = False) -> None:
        self.name = name
        self.lies = lies
        self.at_sync: Callable[[], None] = lambda: None
        self.shadows: dict[str, _Shadow] = {}
        self.changing = threading.Lock()
        super().__init__(name, base="")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if name is None:
            return apsw.VFSFile("", name, flags)
        path = name if isinstance(name, str) else name.filename()
        with self.changing:
            shadow = self.shadows.setdefault(Path(path).name, _Shadow())
        return _LossyFile(self, shadow, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        with self.changing:
            self.shadows.pop(Path(filename).name, None)

    def after_power_cut(self, seed: int) -> Image:
        """What is found afterwards; seed 0 loses everything that was not synced."""
        chance = random.Random(seed)
        share = chance.random() if seed else 0.0
        found: Image = {}
        with self.changing:
            for name, shadow in self.shadows.items():
                if shadow.durable is not None or (seed and chance.random() < 0.5):
                    found[name] = shadow.content(lambda: chance.random() < share)
        return found


class _LossyFile(apsw.VFSFile):
    def __init__(
        self,
        disk: LossyDisk,
        shadow: _Shadow,
        name: str | apsw.URIFilename,
        flags: list[int],
    ) -> None:
        self.disk = disk
        self.shadow = shadow
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        with self.disk.changing:
            self.shadow.changes.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        with self.disk.changing:
            self.shadow.changes.append((newsize, None))

    def xSync(self, flags: int) -> None:
        self.disk.at_sync()
        # The real disk is not asked: the content after the cut is computed, not read from it.
        if not self.disk.lies:
            with self.disk.changing:
                self.shadow.sync()
        self.disk.at_sync()
