"""The contract of an updates log."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from headwater.errors import Fenced, LogError
from headwater.log import StoredUpdate, UpdatesLog
from headwater.testing._outcome import PATIENCE, raised


class UpdatesLogContract(ABC):
    """One open updates log: sequence, fencing, dropping, waiting."""

    @abstractmethod
    def open(self, folder: Path) -> UpdatesLog:
        """An empty log, or, where the backend keeps it, the one that is in ``folder``."""

    def test_updates_come_back_as_they_were(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            assert (log.end(), log.read(0, 10)) == (0, [])
            token = log.acquire()
            before = time.time()
            for sequence in range(1, 6):
                log.append(_update(sequence, epoch=1 + sequence // 3), token)
            log.sync(token)
            found = log.read(0, 10)
            assert all(before <= entry.appended_at <= time.time() for entry in found)
            assert [_without_time(entry) for entry in found] == [
                _update(sequence, epoch=1 + sequence // 3) for sequence in range(1, 6)
            ]
            assert log.end() == 5
            assert [entry.sequence for entry in log.read(2, 2)] == [3, 4]
            assert log.read(5, 10) == []

    def test_a_sequence_follows_the_one_before(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            token = log.acquire()
            for wrong in (0, 2):
                assert raised(partial(log.append, _update(wrong), token)) is LogError
            log.append(_update(1), token)
            for wrong in (1, 3):
                assert raised(partial(log.append, _update(wrong), token)) is LogError
            log.append(_update(2), token)
            assert [entry.sequence for entry in log.read(0, 10)] == [1, 2]

    def test_a_newer_token_fences_off_the_older_ones(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            old = log.acquire()
            log.append(_update(1), old)
            new = log.acquire()
            assert new > old
            assert raised(lambda: log.append(_update(2), old)) is Fenced
            assert raised(lambda: log.sync(old)) is Fenced
            assert log.end() == 1
            log.append(_update(2), new)
            log.sync(new)
            assert raised(lambda: log.append(_update(3), old)) is Fenced
            assert log.end() == 2

    def test_the_end_survives_dropping(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            token = log.acquire()
            for sequence in range(1, 5):
                log.append(_update(sequence), token)
            log.drop(2)
            assert [entry.sequence for entry in log.read(0, 10)] == [3, 4]
            log.drop(1)
            log.drop(100)
            assert (log.end(), log.read(0, 10)) == (4, [])
            assert raised(lambda: log.append(_update(1), token)) is LogError
            log.append(_update(5), token)
            assert [entry.sequence for entry in log.read(0, 10)] == [5]

    def test_waiting_ends_when_a_sequence_is_there(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as log,
            ThreadPoolExecutor(1) as threads,
        ):
            token = log.acquire()
            assert not log.wait(0, 0.02)
            waiter = threads.submit(log.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.append(_update(1), token)
            assert waiter.result(PATIENCE)
            log.drop(1)
            assert log.wait(0, 0.0)

    def test_closing_ends_a_wait_and_refuses_appends(self, tmp_path: Path) -> None:
        log = self.open(tmp_path)
        token = log.acquire()
        with ThreadPoolExecutor(1) as threads:
            waiter = threads.submit(log.wait, 0, PATIENCE)
            time.sleep(0.05)
            log.close()
            assert not waiter.result(PATIENCE / 2)
        assert raised(lambda: log.append(_update(1), token)) is LogError
        log.close()


class SharedUpdatesLogContract(UpdatesLogContract):
    """An updates log that outlives its process and may be open several times at once."""

    def test_everything_is_there_after_opening_again(self, tmp_path: Path) -> None:
        with contextlib.closing(self.open(tmp_path)) as log:
            token = log.acquire()
            for sequence in (1, 2, 3):
                log.append(_update(sequence), token)
            log.drop(2)
            kept = log.read(0, 10)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert (log.end(), log.read(0, 10)) == (3, kept)
            assert log.acquire() > token
            log.drop(3)
        with contextlib.closing(self.open(tmp_path)) as log:
            assert log.end() == 3

    def test_two_open_logs_are_one(self, tmp_path: Path) -> None:
        with (
            contextlib.closing(self.open(tmp_path)) as one,
            contextlib.closing(self.open(tmp_path)) as two,
            ThreadPoolExecutor(1) as threads,
        ):
            old = one.acquire()
            waiter = threads.submit(two.wait, 0, PATIENCE)
            time.sleep(0.05)
            one.append(_update(1), old)
            assert waiter.result(PATIENCE)
            assert two.read(0, 10) == one.read(0, 10)
            new = two.acquire()
            assert raised(lambda: one.append(_update(2), old)) is Fenced
            two.append(_update(2), new)
            assert one.end() == 2

    def test_tokens_are_given_once(self, tmp_path: Path) -> None:
        start = threading.Barrier(3)

        def trainer(_: int) -> list[int]:
            with contextlib.closing(self.open(tmp_path)) as log:
                start.wait(PATIENCE)
                return [log.acquire() for _ in range(10)]

        with ThreadPoolExecutor(3) as threads:
            tokens = [token for tokens in threads.map(trainer, range(3)) for token in tokens]
        assert len(set(tokens)) == 30


def _update(sequence: int, epoch: int = 1) -> StoredUpdate:
    """An update with this sequence, its content derived from it."""
    return StoredUpdate(
        epoch=epoch,
        sequence=sequence,
        trained_through=sequence * 100,
        digest=f"digest of {sequence}",
        payload=bytes([sequence % 256, 0, 255]) * 10,
        report=b'{"sequence": %d}' % sequence,
    )


def _without_time(entry: StoredUpdate) -> StoredUpdate:
    return StoredUpdate(
        entry.epoch,
        entry.sequence,
        entry.trained_through,
        entry.digest,
        entry.payload,
        entry.report,
    )
