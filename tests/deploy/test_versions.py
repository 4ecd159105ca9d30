from __future__ import annotations

import msgspec
import pytest

from headwater.deploy import Versions, _versions
from headwater.errors import SnapshotError
from headwater.types import Metric, Version


def version(number, state="live", **metrics):
    return Version(number, number, f"snapshot-{number}", state, metrics)


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "versions.jsonl")


def test_nothing_is_live_at_first_and_reading_writes_nothing(versions):
    assert versions.history() == []
    assert versions.live() is None
    assert not versions.path.exists()


def test_history_is_every_line_and_survives_reopening(versions):
    lines = [version(1), version(2, "kept", ndcg=Metric(0.25, 0.2, 0.3, 9)), version(2)]
    for line in lines:
        versions.add(line)
    assert Versions(versions.path).history() == lines


@pytest.mark.parametrize(
    ("lines", "live"),
    [
        ([version(1), version(2, "kept")], 1),
        ([version(1), version(2, "kept"), version(2)], 2),
        ([version(1), version(2), version(2, "rolled_back")], 1),
        ([version(1), version(2), version(1)], 1),
        ([version(1), version(1, "dropped")], None),
    ],
)
def test_the_newest_state_of_a_number_counts(versions, lines, live):
    for line in lines:
        versions.add(line)
    found = versions.live()
    assert (found and found.number) == live


def test_one_without_its_snapshot_is_dropped_also_where_it_is_live(versions):
    for number in (1, 2, 3):
        versions.add(version(number))
    versions.path.with_name("snapshot-2").touch()
    assert [one.state for one in versions.listed()] == ["dropped", "kept", "dropped"]
    versions.path.with_name("snapshot-3").touch()
    assert [one.state for one in versions.listed()] == ["dropped", "kept", "live"]
    assert versions.live() == version(3)


def test_lines_are_replaced_as_one(versions):
    for number in (1, 2, 3):
        versions.add(version(number))
    versions.replace([version(2), version(1)])
    assert versions.history() == [version(2), version(1)]
    assert [path.name for path in versions.path.parent.iterdir()] == ["versions.jsonl"]


def test_of_too_many_the_newest_stay_and_what_is_needed(versions, monkeypatch):
    monkeypatch.setattr(_versions, "_MOST", 10)
    promoted = msgspec.structs.replace(version(3), version=7)
    for line in (version(1), version(2), promoted):
        versions.add(line)
    versions.path.with_name("snapshot-1").touch()
    for number in range(4, 100):
        versions.add(version(number, "rolled_back"))
        lines = versions.history()
        assert len(lines) <= 10
        assert {1, 3, *range(max(4, number - 4), number + 1)} <= {one.number for one in lines}
        assert versions.live() == promoted
        assert versions.next_number() == number + 1
        assert max(one.version for one in lines) == 7
    versions.roll_back(first=0)
    assert len(versions.history()) <= 10
    assert {one.state for one in versions.listed()} == {"rolled_back"}
    assert versions.next_number() == 100
    assert max(one.version for one in versions.history()) == 7


def test_a_line_torn_by_a_crash_is_no_line_and_is_cut_off_by_the_next(versions):
    versions.add(version(1))
    whole = versions.path.read_bytes()
    versions.add(version(2))
    torn = versions.path.read_bytes()[:-1]
    for length in range(len(whole), len(torn) + 1):
        versions.path.write_bytes(torn[:length])
        assert versions.history() == [version(1)]
        assert versions.path.read_bytes() == torn[:length]
        versions.add(version(3))
        assert versions.history() == [version(1), version(3)]


def test_a_damaged_line_before_the_end_is_named(versions):
    versions.add(version(1))
    versions.add(version(2))
    versions.path.write_bytes(versions.path.read_bytes().replace(b'"live"', b'"lime"', 1))
    with pytest.raises(SnapshotError, match=r"versions\.jsonl, line 1 is damaged"):
        versions.history()


def test_a_metric_that_is_not_finite_does_not_spoil_the_file(versions):
    versions.add(version(1))
    with pytest.raises(SnapshotError, match="version 2 can't be recorded"):
        versions.add(version(2, ndcg=float("nan")))
    assert versions.history() == [version(1)]
