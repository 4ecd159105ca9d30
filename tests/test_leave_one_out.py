"""``headwater evaluate``: what is held out, and that nothing of it is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from headwater import data, leave_one_out
from headwater.cli import app
from headwater.config import Config
from headwater.errors import UnreadableFile
from headwater.leave_one_out import LEFT_OUT, TEST, TRAINING, VALIDATION
from headwater.loop import Backfill
from headwater.preprocess import joined
from headwater.recommend import Recommender
from headwater.types import Ranking
from tests.loop.streams import small

FIGURES = {"n", "hit_rate@10", "ndcg@10", "mrr@10", "precision@10", "f1@10", "accuracy@1"}
FIGURES |= {"recall@20", "mrr@20", "coverage@10", "novelty@10"}


def quick(**sections: dict[str, Any]) -> Config:
    return small(0, backfill={"passes": 3, "threads": 1, "positions": 500}, **sections)


def file(path: Path, rows: list[tuple[Any, ...]], *more: str) -> Path:
    header = ("user_id", "item_id", "timestamp", *more)
    lines = [",".join(map(str, row)) for row in (header, *rows)]
    (path / "events.csv").write_text("\n".join(lines) + "\n")
    return path / "events.csv"


def read(path: Path, order: str | None = None, **mapping: str) -> Any:
    return leave_one_out.read(path, order, mapping, quick())


def silent(*_: object) -> None:
    pass


# --- what is held out ----------------------------------------------------------------------------


def test_the_last_event_of_a_user_is_the_test_and_the_one_before_it_the_validation(
    tmp_path: Path,
) -> None:
    rows = [
        *(("a", "1", 10), ("b", "1", 11), ("a", "2", 12), ("b", "2", 13), ("a", "3", 14)),
        *(("a", "4", 15), ("c", "1", 16), ("c", "2", 17), ("c", "3", 18)),
    ]
    found = leave_one_out.parts(read(file(tmp_path, rows)), quick())
    of_a, of_b, of_c = (
        [TRAINING] * 2 + [VALIDATION, TEST],
        [TRAINING] * 2,
        [TRAINING, VALIDATION, TEST],
    )
    assert found.tolist() == [
        *(of_a[0], of_b[0], of_a[1], of_b[1], of_a[2], of_a[3]),
        *of_c,
    ]


@pytest.mark.parametrize("other", ["dislike", "impression", "search", "adjust", "survey"])
def test_what_says_not_wanted_is_no_target_and_is_left_out_where_it_comes_late(
    other: str, tmp_path: Path
) -> None:
    kinds = ["view", other, "view", "view", other, "view", other]
    rows = [("a", k, 10 + k, kind) for k, kind in enumerate(kinds)]
    found = leave_one_out.parts(read(file(tmp_path, rows, "event")), quick())
    assert found.tolist() == [TRAINING, TRAINING, TRAINING, VALIDATION, LEFT_OUT, TEST, LEFT_OUT]


def test_users_with_two_events_are_not_asked(tmp_path: Path) -> None:
    rows = [("a", 1, 10), ("a", 2, 11), ("b", 1, 12)]
    with pytest.raises(UnreadableFile, match="no user with three wanted events"):
        leave_one_out.leave_one_out(read(file(tmp_path, rows)), quick(), silent)


def test_a_file_without_targets_says_so(tmp_path: Path) -> None:
    rows = [("a", k, 10 + k, "glance") for k in range(5)]
    with pytest.raises(UnreadableFile, match="no user with three wanted events"):
        leave_one_out.leave_one_out(read(file(tmp_path, rows, "event")), quick(), silent)


def test_a_figure_of_nothing_is_shown_as_a_dash() -> None:
    nothing: dict[str, Any] = dict.fromkeys(FIGURES)
    table = leave_one_out.table({"all": {**nothing, "n": 0}, "experts": {"popularity": nothing}})
    assert [*table.columns[1].cells] == ["–", "–"]


# --- order ---------------------------------------------------------------------------------------


def items_of(interactions: Any, user: str) -> list[str]:
    mine = interactions.user_codes == interactions.user_ids.index(user)
    return [interactions.item_ids[code] for code in interactions.item_codes[mine]]


def test_a_column_orders_the_events_of_a_user(tmp_path: Path) -> None:
    rows = [
        ("a", "x", 10, 3),
        ("a", "y", 10, 1),
        ("b", "x", 5, 1),
        ("a", "z", 9, 2),
        ("a", "w", 20, 4),
    ]
    found = read(file(tmp_path, rows, "place"), "place")
    assert items_of(found, "a") == ["y", "z", "x", "w"]
    assert found.timestamps.tolist() == [5, 10, 10, 10, 20], "times stay, and never go back"
    assert items_of(read(tmp_path / "events.csv"), "a") == ["z", "x", "y", "w"]


def test_a_file_without_times_has_an_order(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,place\na,x,3\na,y,1\na,z,2\n")
    assert items_of(read(path, "place"), "a") == ["y", "z", "x"]
    with pytest.raises(UnreadableFile):
        read(path)


@pytest.mark.parametrize("timed", [True, False])
def test_numbers_of_any_size_order_and_what_is_skipped_is_counted(
    tmp_path: Path, timed: bool
) -> None:
    numbers = ["2e11", "-5", "5e10", "1e300", "", "inf", "x", "99999999999", "-1e300"]
    rows = [("a", number, 10, number) for number in numbers]
    path = file(tmp_path, rows, "place")
    if not timed:
        path.write_text(path.read_text().replace("timestamp", "other"))
    found = read(path, "place")
    assert items_of(found, "a") == ["-1e300", "-5", "5e10", "99999999999", "2e11", "1e300"]
    assert (np.diff(found.timestamps) >= 0).all()
    reasons = ("place is missing", "place is not finite", "place is not a number")
    assert found.skipped == dict.fromkeys(reasons, 1)
    with pytest.raises(UnreadableFile, match="no column plac, which --order names; columns: user"):
        read(path, "plac")


# --- leaks ---------------------------------------------------------------------------------------


def ratings(path: Path) -> Path:
    random = np.random.default_rng(5)
    rows = [
        (
            f"u{random.integers(20)}",
            f"i{int(40 * random.random() ** 2)}",
            1_000_000 + 60 * k,
            "rating",
        )
        for k in range(500)
    ]
    return file(path, rows, "event")


def lists(
    interactions: Any, monkeypatch: pytest.MonkeyPatch, parts: Any = leave_one_out.parts
) -> list[list[int]]:
    """What is ranked for the test events."""
    ranked: list[Ranking] = []
    rank = Recommender.rank

    def kept(self: Recommender, *arguments: Any) -> Ranking:
        ranked.append(rank(self, *arguments))
        return ranked[-1]

    with monkeypatch.context() as patched:
        patched.setattr(Recommender, "rank", kept)
        patched.setattr(leave_one_out, "parts", parts)
        leave_one_out.leave_one_out(interactions, quick(), silent)
    return [rows.tolist() for rows in ranked[-1].rows]


def with_other_tests(interactions: Any) -> Any:
    """The same events, but for the tests' items: each has the next user's."""
    tests = np.flatnonzero(leave_one_out.parts(interactions, quick()) == TEST)
    items = interactions.item_codes.copy()
    items[tests] = np.roll(items[tests], 1)
    return replace(interactions, item_codes=items)


def test_what_the_test_item_is_moves_no_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = read(ratings(tmp_path))
    other = with_other_tests(one)
    assert (one.item_codes != other.item_codes).sum() >= 10
    assert lists(one, monkeypatch) == lists(other, monkeypatch)


def test_a_test_item_that_is_learned_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above can fail: here the counting experts know the tests."""
    one = read(ratings(tmp_path))
    count = Backfill.run

    def leaking(self: Backfill, hold_out: Any) -> Any:
        self.fold.model.count(leaked[-1])
        return count(self, hold_out)

    leaked: list[Any] = []

    def joining(held: Any) -> Any:
        leaked.append(joined(held))
        return leaked[-1]

    monkeypatch.setattr(leave_one_out, "joined", joining)
    monkeypatch.setattr(Backfill, "run", leaking)
    assert lists(one, monkeypatch) != lists(with_other_tests(one), monkeypatch)


def test_an_item_that_was_rated_is_never_ranked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interactions = read(ratings(tmp_path))
    roles = leave_one_out.parts(interactions, quick())
    users = interactions.user_codes[roles == TEST]
    found = lists(interactions, monkeypatch)
    names: list[int] = list(dict.fromkeys(interactions.item_codes.tolist()))  # rows, by first sight
    for user, rows in zip(users, found, strict=True):
        had = (interactions.user_codes == user) & (roles != TEST)
        earlier = {names.index(item) for item in interactions.item_codes[had].tolist()}
        shown = {row for row in rows if row >= 0}
        assert shown
        assert not shown & earlier


# --- the command ---------------------------------------------------------------------------------


def test_the_command_writes_the_figures_of_a_shipped_stream(tmp_path: Path) -> None:
    stream = pl.read_parquet(data.path("movietweetings-100k") / "interactions.parquet").head(3000)
    stream.write_parquet(tmp_path / "films.parquet")
    (tmp_path / "settings.toml").write_text(
        "[preprocess]\nhistory_length = 10\n[sequence]\ndim = 16\n"
        "[backfill]\npasses = 2\nthreads = 1\n"
    )
    arguments = ["evaluate", "films.parquet", "--config", "settings.toml", "--json", "out.json"]
    arguments = [word if "." not in word else str(tmp_path / word) for word in arguments]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "out.json").read_text())
    assert results.keys() == {
        *("protocol", "events", "seconds", "config", "backfill", "all", "experts", "segments"),
        "calibration",
    }
    assert results["all"].keys() == FIGURES
    assert next(iter(results["experts"])) == "popularity"
    sizes = stream.group_by("user_id").len()["len"]
    assert results["all"]["n"] == (sizes >= 3).sum()
    assert results["backfill"]["events"] == len(stream) - 2 * results["all"]["n"]
    assert results["all"]["recall@20"] > 0.05, "against .01 by chance"
    assert "mixture (served)" in result.output
