"""Joining: what a batch of served lists and clicks comes to, in the tables of their log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, Literal

import apsw
import msgspec

from headwater.types import ServedList

_LISTS_OF_WINDOW = 20
"""Newest lists of a user in which an item is looked for: a client that asks for lists all day long
must not make each of its events read all of them."""

_ASKED_AT_ONCE = 100

BY_ID, BY_WINDOW = 1, 2
"""How a list was clicked, in the column of that name; 0 for not at all."""

_encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(ServedList).decode


class Click(msgspec.Struct, frozen=True, array_like=True):
    """An action on an item that names the list it was shown in."""

    recommendation_id: str
    item_id: str
    offset: int


class Act(msgspec.Struct, frozen=True, array_like=True):
    """An action that names no list: on an item that may have been shown since ``since``."""

    user_id: str
    item_id: str
    since: float
    until: float


class Searched(msgspec.Struct, frozen=True, array_like=True):
    """The events through this offset were searched for clicks."""

    offset: int


Written = ServedList | Click | Act | Searched


class Joining:
    """Writes lists, and joins clicks to them, whichever of the two comes first.

    Args:
        connection: to the tables of a ``ServedLog``.
        keep: newest lists, and newest clicks without a list, that are kept.
    """

    def __init__(self, connection: apsw.Connection, keep: int) -> None:
        self._connection = connection
        self._keep = keep
        self._new: Counter[int] = Counter()  # a commit's lists by version, not yet added up
        # Whether there may be clicks that came before their list: there nearly never are, and each
        # statement takes as long as the list's own.
        self._early = False

    def commit(self, batch: Collection[Written]) -> None:
        """Writes a batch, all of it or nothing."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            shown = self._shown(batch)
            self._new.clear()
            self._early = connection.execute("SELECT 1 FROM early_clicks LIMIT 1").get is not None
            for entry in batch:
                if isinstance(entry, ServedList):
                    self._insert(entry)
                elif isinstance(entry, Click):
                    self._join(entry)
                elif isinstance(entry, Act):
                    if entry.user_id in shown:
                        self._join_by_window(entry)
                else:
                    connection.execute(
                        "INSERT INTO progress VALUES(1, ?)"
                        " ON CONFLICT(id) DO UPDATE SET offset = max(offset, excluded.offset)",
                        (entry.offset,),
                    )
            self._add_up()
            for table in ("lists", "early_clicks"):
                connection.execute(
                    f"DELETE FROM {table} WHERE number <= (SELECT max(number) FROM {table}) - ?",
                    (self._keep,),
                )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _shown(self, batch: Collection[Written]) -> set[str]:
        """Of the users that acted, those with a list: most events are of nobody that was shown any.

        Asked for many at a time, since each statement costs more than a look into the index.
        """
        users = list({entry.user_id for entry in batch if isinstance(entry, Act)})
        shown = {entry.user_id for entry in batch if isinstance(entry, ServedList)}
        for start in range(0, len(users), _ASKED_AT_ONCE):
            part = users[start : start + _ASKED_AT_ONCE]
            shown.update(
                user_id
                for (user_id,) in self._connection.execute(
                    f"SELECT DISTINCT user_id FROM lists"
                    f" WHERE user_id IN ({','.join('?' * len(part))})",
                    part,
                )
            )
        return {user_id for user_id in shown if user_id is not None}

    def _insert(self, served: ServedList) -> None:
        connection = self._connection
        connection.execute(
            "INSERT OR IGNORE INTO lists"
            "(recommendation_id, clicked, payload, user_id, served_at, version)"
            " VALUES(?, 0, ?, ?, ?, ?)",
            (
                served.recommendation_id,
                _encode(served),
                served.user_id,
                served.served_at,
                served.version,
            ),
        )
        if not connection.changes():
            return
        self._new[served.version] += 1
        if not self._early:
            return
        early: list[Any] = connection.execute(
            "DELETE FROM early_clicks WHERE recommendation_id = ? RETURNING item_id",
            (served.recommendation_id,),
        ).fetchall()
        if any(item_id in served.items for (item_id,) in early):
            self._count(served)

    def _add_up(self) -> None:
        """Adds the lists of a commit, as far as it has come, to those of their versions."""
        for version, n in self._new.items():
            self._connection.execute(
                "INSERT INTO totals VALUES(?1, ?2, 0, 0)"
                " ON CONFLICT(version) DO UPDATE SET served = served + ?2",
                (version, n),
            )
        self._new.clear()

    def _join(self, click: Click) -> None:
        connection = self._connection
        found = connection.execute(
            "SELECT clicked, payload FROM lists WHERE recommendation_id = ?",
            (click.recommendation_id,),
        ).get
        if found is None:
            self._early = True
            connection.execute(
                "INSERT OR IGNORE INTO early_clicks(recommendation_id, item_id, offset)"
                " VALUES(?, ?, ?)",
                (click.recommendation_id, click.item_id, click.offset),
            )
            return
        clicked, payload = found
        if not clicked:
            served = decode(payload)
            if click.item_id in served.items:
                self._count(served)

    def _join_by_window(self, act: Act) -> None:
        lists: list[Any] = self._connection.execute(
            "SELECT clicked, payload FROM lists"
            " WHERE user_id = ? AND served_at BETWEEN ? AND ? ORDER BY served_at DESC LIMIT ?",
            (act.user_id, act.since, act.until, _LISTS_OF_WINDOW),
        ).fetchall()
        for clicked, payload in lists:
            served = decode(payload)
            if act.item_id in served.items:
                if not clicked:
                    self._count(served, "clicked_by_window")
                return

    def _count(
        self, served: ServedList, how: Literal["clicked", "clicked_by_window"] = "clicked"
    ) -> None:
        self._add_up()  # there may be no row of its version yet
        self._connection.execute(
            "UPDATE lists SET clicked = ? WHERE recommendation_id = ?",
            (BY_ID if how == "clicked" else BY_WINDOW, served.recommendation_id),
        )
        self._connection.execute(
            f"UPDATE totals SET {how} = {how} + 1 WHERE version = ?", (served.version,)
        )
