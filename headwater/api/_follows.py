"""What the API asks of a follower, and what it says of where one stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from headwater.types import (
    Explanation,
    Item,
    Recommendations,
    Request,
    SimilarItems,
    SimilarUsers,
    User,
)


class Directory(Protocol):
    """What was set of items and users, as a ``headwater.preprocess.Preprocessor`` has it."""

    def item(self, item_id: str) -> Item | None: ...

    def dimensions(self) -> dict[str, int]: ...

    def user(self, user_id: str) -> User | None: ...

    def listed_items(self, after: int, n: int) -> tuple[list[Item], int | None]: ...

    def listed_users(self, after: int, n: int) -> tuple[list[User], int | None]: ...


class Counted(Protocol):
    """How often a cache had what was asked for, and how often not; may be read from any thread."""

    hits: int
    misses: int


class Follows(Protocol):
    """What the API asks of a ``headwater.loop.Follower``."""

    @property
    def offset(self) -> int: ...

    @property
    def directory(self) -> Directory: ...

    @property
    def caches(self) -> Mapping[str, Counted]: ...

    epoch: int
    version: int
    sequence: int
    trained_through: int
    gradient_through: int
    report: dict[str, Any]

    def prepare(self) -> None: ...

    def catch_up(self) -> None: ...

    def look_on(self) -> bool: ...

    def rest(self) -> bool: ...

    def recommend(self, requests: Sequence[Request], now: float) -> list[Recommendations]: ...

    def popular(self, n: int) -> Recommendations: ...

    def explain(self, user_id: str, n: int, now: float) -> Explanation: ...

    def similar_items(
        self, item_id: str, n: int, exclude: frozenset[str]
    ) -> SimilarItems | None: ...

    def similar_users(self, user_id: str, n: int) -> SimilarUsers: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the follower stood after a fold; safe to read from any thread."""

    offset: int = 0
    epoch: int = 0
    version: int = 0
    sequence: int = 0
    trained_through: int = 0
    gradient_through: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, follower: Follows) -> Standing:
        return cls(
            offset=follower.offset,
            epoch=follower.epoch,
            version=follower.version,
            sequence=follower.sequence,
            trained_through=follower.trained_through,
            gradient_through=follower.gradient_through,
            report=follower.report,
        )
