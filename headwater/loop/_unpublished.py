"""What was learned since the newest update, in the words of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from headwater.loop._fold import Fold
from headwater.loop._stages import Turn
from headwater.types import Held, Pace, SettingChange, Update

_Noted = TypeVar("_Noted", Held, Pace)


class Unpublished:
    """Micro-batches that no update tells of yet: where they end, and what they got."""

    def __init__(self) -> None:
        self.ends: list[int] = []
        self.held: list[Held] = []
        self.paces: list[Pace] = []
        self.settings: list[SettingChange] = []

    def __bool__(self) -> bool:
        return bool(self.ends)

    def add(self, turn: Turn, pace: Pace | None) -> None:
        """Takes in what a micro-batch came to."""
        self.ends.append(turn.end)
        self.settings += turn.settings
        if pace is not None:
            self.paces.append(pace)
        if turn.held is not None:
            self.held.append(turn.held)

    def update(self, fold: Fold, epoch: int, sequence: int, gradient_through: int) -> Update:
        """The update that makes it public; rows that changed count as told from here on."""
        tables, tombstones, dense = fold.model.changes()
        return Update(
            epoch=epoch,
            sequence=sequence,
            trained_through=fold.offset,
            batch_ends=tuple(self.ends),
            tables=tables,
            tombstones=tombstones,
            dense=dense,
            settings=tuple(self.settings),
            held=tuple(self.held),
            paces=tuple(self.paces),
            gradient_through=gradient_through,
        )


def noted(end: int, of: Sequence[_Noted]) -> _Noted | None:
    """What an update says of the micro-batch with that end."""
    return next((one for one in of if one.through == end), None)
