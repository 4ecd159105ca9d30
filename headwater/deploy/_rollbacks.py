"""The order to roll back, from what an operator or an alarm says."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from headwater.errors import InvalidInput
from headwater.types import Rollback, Version


def rollback_to(
    versions: Sequence[Version], to: int | None, *, through: int, by: str, why: str
) -> Rollback:
    """A rollback to a kept version, which sets aside what came since, to offset ``through``.

    Args:
        versions: as ``Versions.listed`` gives them.
        to: a number; ``None`` for the newest one.
        through: the last event to pass over.
        by: who wants it.
        why: for the audit trail.

    Raises:
        InvalidInput: there is no such version, or its state isn't kept.
    """
    kept = {version.number: version for version in versions if version.state in ("live", "kept")}
    if not kept:
        raise InvalidInput("to", "can't be met: no version is kept yet")
    number = max(kept) if to is None else to
    if number not in kept:
        numbers = ", ".join(str(one) for one in sorted(kept))
        raise InvalidInput("to", f"is {number}, which isn't kept; choose one of {numbers}")
    first = kept[number].offset + 1
    return Rollback(uuid4().hex, number, first, max(through, first - 1), by, why)
