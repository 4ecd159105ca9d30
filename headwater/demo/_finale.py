"""One event through the whole loop: the list before, the event, the list after, and how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headwater.demo._ratings import Ratings, rating_event
from headwater.demo._server import Server

N = 10
WAIT_SECONDS = 20.0
RATING = 9.0
LEAST_SHARE = 0.05
"""Shares of a score that would be shown as zero aren't shown."""


@dataclass(frozen=True)
class Followed:
    """What one event did, with the milliseconds from its acknowledgement."""

    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    changed_ms: float | None
    """Until a list was answered that differs; ``None``: not within the time."""
    learned_ms: float | None
    """Until ``trained_through`` had reached the event."""


def follow_one_event(console: Console, server: Server, ratings: Ratings, n: int) -> None:
    """Shows what one more rating changes for one user, after the first ``n`` ratings."""
    picked = pick(ratings, n)
    if picked is None:
        console.print("\nToo few ratings were streamed to follow one user.")
        return
    user, film = picked
    history = [ratings.titles[item] for item in ratings.history(user, n)]
    console.print(f"\nUser {user} rated {len(history)} films, the last ones:", highlight=False)
    for title in history[-5:]:
        console.print(f"  {title}", markup=False, highlight=False)
    timestamp = ratings.rows[n - 1][3] + 1
    event = rating_event("one-more", user, film, RATING, timestamp)
    followed = follow(server, user, event)
    console.print()
    console.print(_lists(followed.before, {}, "the list before", ratings))
    console.print(
        f"\nNow this user rates [bold]{ratings.titles[film]}[/bold], one event "
        "among all the others.\n",
        highlight=False,
    )
    places = {item["item_id"]: place for place, item in enumerate(followed.before)}
    console.print(_lists(followed.after, places, "the list after", ratings))
    gone = [item for item in followed.before if item["item_id"] not in _ids(followed.after)]
    if gone:
        titles = ", ".join(item["title"] for item in gone)
        console.print(f"gone: {titles}", style="dim", markup=False, highlight=False)
    changed, learned = _after(followed.changed_ms), _after(followed.learned_ms)
    console.print(
        f"\n{changed} after the event was acknowledged, the list was another one. {learned} after "
        "it, the model had learned the event and served what it had learned.",
        highlight=False,
    )


def pick(ratings: Ratings, n: int) -> tuple[str, str] | None:
    """A user with some history, and a film new to them that another film often follows."""
    regulars = ratings.regulars(n)
    for film, follower in ratings.connected(n):
        for user in regulars:
            if not {film, follower} & set(ratings.history(user, n)):
                return user, film
    return None


def follow(server: Server, user: str, event: dict[str, Any]) -> Followed:
    """Posts ``event`` and watches lists and ``trained_through`` until both have changed."""
    before = after = server.recommend(user, N)["items"]
    offset = server.send([event])
    acknowledged = time.monotonic()
    changed: float | None = None
    learned: float | None = None
    while time.monotonic() < acknowledged + WAIT_SECONDS and (changed is None or learned is None):
        if changed is None:
            after = server.recommend(user, N)["items"]
            if _ids(after) != _ids(before):
                changed = (time.monotonic() - acknowledged) * 1000.0
        if learned is None and server.status()["trained_through"] >= offset:
            learned = (time.monotonic() - acknowledged) * 1000.0
    return Followed(before, after, changed, learned)


def _ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items]


def _lists(
    items: list[dict[str, Any]], places: dict[str, int], title: str, ratings: Ratings
) -> Table:
    """A list with its reasons; where ``places`` of before are given, with what moved or is new."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("")
    table.add_column("film", no_wrap=True)
    table.add_column("because", style="dim")
    for place, item in enumerate(items):
        table.add_row(
            str(place + 1), _moved(place, item, places), item["title"], _because(item, ratings)
        )
    return table


def _moved(place: int, item: dict[str, Any], places: dict[str, int]) -> Text:
    if not places:
        return Text("")
    before = places.get(item["item_id"])
    if before is None:
        return Text("new", style="bold green")
    if before > place:
        return Text(f"↑{before - place}", style="green")
    return Text(f"↓{place - before}", style="red") if before < place else Text("")


def _because(item: dict[str, Any], ratings: Ratings) -> str:
    """The experts' shares of the score, by the film that they came from, the largest first."""
    shares: dict[str, list[str]] = {}
    for reason in sorted(item["reasons"], key=lambda reason: -abs(reason["contribution"])):
        if abs(reason["contribution"]) < LEAST_SHARE:
            continue
        source = ratings.titles.get(reason.get("because_of"), "")
        shares.setdefault(source, []).append(f"{reason['expert']} {reason['contribution']:+.1f}")
    parts = [
        f"{', '.join(found)} ({source})" if source else ", ".join(found)
        for source, found in shares.items()
    ]
    return "; ".join(parts)


def _after(milliseconds: float | None) -> str:
    if milliseconds is None:
        return f"More than {WAIT_SECONDS:.0f} s"
    return f"{milliseconds:,.0f} ms"
