"""The errors that Headwater raises on purpose; the message names the field and the remedy."""

from __future__ import annotations

from collections.abc import Sequence


class HeadwaterError(Exception):
    """Base of everything raised on purpose."""


class ConfigError(HeadwaterError):
    """A setting is unknown, misspelt or out of range."""


class InvalidInput(HeadwaterError):
    """One piece of input can't be used; ``field`` says which part, ``reason`` why.

    >>> str(InvalidInput("timestamp", "is 2 hours in the future; send at most 5 minutes ahead"))
    'timestamp is 2 hours in the future; send at most 5 minutes ahead'
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


class TooLarge(InvalidInput):
    """There is more of something in one piece of input than the configuration allows."""


class Rejected(InvalidInput):
    """A server understood what it was sent and refused part of it.

    ``results`` holds what became of each thing that was sent, in order: its place in the
    log, or the ``Rejected`` of its own. What was not refused is stored.
    """

    def __init__(self, field: str, reason: str, results: Sequence[object] = ()) -> None:
        super().__init__(field, reason)
        self.results = tuple(results)


class Unreachable(HeadwaterError):
    """A server didn't answer, or only that it can't now, for as long as it was asked."""


class UnreadableFile(HeadwaterError):
    """A file can't be read as interactions or items."""


class LogError(HeadwaterError):
    """A log can't be opened, or refuses what it was given."""


class Dropped(LogError):
    """Entries that a reader needs were dropped from the events log to keep its size or age."""

    def __init__(self, start: int) -> None:
        super().__init__(
            f"the events log begins after offset {start:,}: what was before is no longer kept "
            "(log.keep_days, log.keep_megabytes), and no snapshot that fits the settings stands "
            "for it. Set the settings back to those of the newest snapshot, or restore a backup; "
            "or, to learn from what is kept alone, `headwater export` items, users and events "
            "and `headwater import` them into a new data folder"
        )
        self.start = start


class Fenced(LogError):
    """Another trainer has taken over: this one's updates are refused from now on."""


class UpdateError(HeadwaterError):
    """An update can't be encoded, or its bytes are damaged or from a newer format."""


class SnapshotError(HeadwaterError):
    """A snapshot is corrupt, truncated, from a newer format or of another shape."""


class Unfit(SnapshotError):
    """A whole snapshot is of a newer format, or of another shape than the settings want."""


class GuardTripped(HeadwaterError):
    """An update is not fit to go live; ``guard`` names the check, the message its numbers."""

    def __init__(self, guard: str, reason: str) -> None:
        super().__init__(f"{guard}: {reason}")
        self.guard = guard
        self.reason = reason
