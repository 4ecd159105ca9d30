"""What the live model gained, micro-batch by micro-batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import pytest

from headwater.errors import LogError
from headwater.log import gains as module
from headwater.log.gains import Gains, GainsLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[GainsLog]:
    with closing(GainsLog(tmp_path / "gains.db")) as log:
        yield log


def batch(first: int, through: int, epoch: int = 1) -> Gains:
    offsets = np.arange(first, through + 1, 2)
    return Gains(first, through, epoch, offsets, 1.0 / offsets)


def test_micro_batches_come_back_in_order_and_as_they_were(log: GainsLog) -> None:
    assert log.after(0) is None
    assert log.newest() == 0
    for first in (1, 101, 201):
        log.add(batch(first, first + 99))
    found = log.after(100)
    assert found is not None
    assert found[:3] == (101, 200, 1)
    assert np.array_equal(found.offsets, batch(101, 200).offsets)
    assert np.array_equal(found.values, batch(101, 200).values)
    again = log.after(150)
    assert again is not None
    assert again.through == 200
    assert log.after(300) is None
    assert log.newest() == 300


def test_what_is_learned_again_takes_the_place_of_what_was(log: GainsLog) -> None:
    log.add(batch(1, 100))
    log.add(batch(101, 150))
    log.add(batch(151, 160))
    log.add(batch(101, 200, epoch=2))
    found = log.after(100)
    assert found is not None
    assert found[:3] == (101, 200, 2)
    assert log.after(200) is None


def test_only_the_newest_are_kept(log: GainsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 250)
    for first in range(1, 1_000, 100):
        log.add(batch(first, first + 99))
    oldest = log.after(0)
    assert oldest is not None
    assert oldest.first == 701


def test_another_process_reads_what_one_wrote(log: GainsLog, tmp_path: Path) -> None:
    log.add(batch(1, 10))
    with closing(GainsLog(tmp_path / "gains.db")) as other:
        log.add(batch(11, 20))
        assert other.after(10) is not None


def test_what_cannot_be_written_stops_nobody(
    log: GainsLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise apsw.FullError("disk full")

    monkeypatch.setattr(module, "connect", full)
    log.add(batch(1, 100))
    assert log.after(0) is None


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gains.db").write_bytes(b"no database at all, and long enough to look at" * 100)
    with pytest.raises(LogError, match=r"gains\.db"):
        GainsLog(tmp_path / "gains.db")
