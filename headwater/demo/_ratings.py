"""The ratings that are streamed, and what the demo wants to know of them beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

ENOUGH = 5
"""Times that one film must have followed another to be shown as connected with it."""


@dataclass(frozen=True)
class Ratings:
    """Ratings by time, with the titles of the films."""

    rows: list[tuple[Any, str, float, float]]  # user, item, rating, timestamp
    titles: dict[str, str]
    items_file: Path

    @classmethod
    def read(cls, folder: Path) -> Ratings:
        events = pl.read_parquet(folder / "interactions.parquet")
        items = pl.read_parquet(folder / "items.parquet")
        return cls(
            rows=events.select("user_id", "item_id", "rating", "timestamp").rows(),
            titles=dict(items.select("item_id", "title").rows()),
            items_file=folder / "items.parquet",
        )

    def __len__(self) -> int:
        return len(self.rows)

    def events(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows ``start`` to ``stop`` as the API takes them; sent twice, they count once."""
        return [
            rating_event(f"rating-{start + k}", user, item, value, timestamp)
            for k, (user, item, value, timestamp) in enumerate(self.rows[start:stop])
        ]

    def history(self, user: str, n: int) -> list[str]:
        """The films that a user rated among the first ``n`` ratings, oldest first."""
        return [item for who, item, *_ in self.rows[:n] if str(who) == user]

    def connected(self, n: int) -> list[tuple[str, str]]:
        """Pairs (film, film that users rated right after it), the strongest first.

        Strength is the share of the first film's ratings that the second one
        followed, times the logarithm of how much more often that is than
        chance, times the root of how often: of the first ``n`` ratings.
        """
        frame = self._frame(n)
        pairs = (
            frame.with_columns(after=pl.col("item").shift(-1).over("user"))
            .drop_nulls("after")
            .group_by("item", "after")
            .len("together")
            .filter(pl.col("together") >= ENOUGH)
        )
        counts = frame.group_by("item").len("count")
        pairs = pairs.join(counts, on="item").join(
            counts.rename({"item": "after", "count": "after_count"}), on="after"
        )
        share = pl.col("together") / pl.col("count")
        strength = share * (share * n / pl.col("after_count")).log() * pl.col("together").sqrt()
        ranked = pairs.sort([strength, "item"], descending=[True, False])
        return list(ranked.select("item", "after").iter_rows())

    def regulars(self, n: int, fewest: int = 8, most: int = 40) -> list[str]:
        """Users with some history among the first ``n`` ratings, the latest active first."""
        users = (
            self._frame(n)
            .group_by("user")
            .agg(pl.len(), last=pl.col("row").max())
            .filter(pl.col("len").is_between(fewest, most))
            .sort("last", descending=True)
        )
        return users["user"].to_list()

    def _frame(self, n: int) -> pl.DataFrame:
        rows: Sequence[tuple[Any, str, float, float]] = self.rows[:n]
        return pl.DataFrame(
            {"user": [str(row[0]) for row in rows], "item": [row[1] for row in rows]},
            schema={"user": pl.String, "item": pl.String},
        ).with_row_index("row")


def rating_event(
    event_id: str, user: Any, item: str, value: float, timestamp: float
) -> dict[str, Any]:
    """A rating as ``POST /v1/events`` takes it."""
    return {
        "event_id": event_id,
        "type": "rating",
        "user_id": str(user),
        "item_id": item,
        "value": value,
        "timestamp": timestamp,
    }
