from __future__ import annotations

import errno
import random
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file
from structlog.testing import capture_logs

from headwater.deploy import Manifest, Snapshots, _snapshots, state_digest
from headwater.deploy._sealing import head, seal
from headwater.errors import SnapshotError

SHAPE: dict[str, str | int | float | bool] = {"sequence.dim": 64, "settings": "c0ffee"}


def state(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "rows": rng.normal(size=(7, 4)).astype(np.float32),
        "strided": np.arange(24).reshape(4, 6)[:, ::2],
        "counts": np.zeros((0, 3), np.int64),
        "seed": np.array(seed, np.int64),
        "flags": np.array([True, False]),
        "half": np.array([0.5, np.nan], np.float16),
    }


def manifest(sequence, epoch=1):
    return Manifest(
        epoch=epoch,
        version=3,
        sequence=sequence,
        offset=10 * sequence,
        shape=SHAPE,
        created_at=1.7e9,
    )


@pytest.fixture
def snapshots(tmp_path):
    return Snapshots(tmp_path / "snapshots", keep=2)


def flip(path, place, bit):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))


def test_a_snapshot_comes_back_bit_for_bit(snapshots):
    written = state(5)
    path = snapshots.write(written, manifest(123))
    assert path.name == "snapshot-e0001-s000000000123.safetensors"
    loaded, described = snapshots.load(path, SHAPE)
    assert loaded.keys() == written.keys()
    for name, array in written.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        assert loaded[name].tobytes() == array.tobytes()
    assert described == msgspec.structs.replace(manifest(123), digest=state_digest(written))
    assert snapshots.manifest(path) == described


def test_the_digest_is_of_the_state_alone(snapshots):
    first = snapshots.write(state(), manifest(1))
    later = msgspec.structs.replace(manifest(2), created_at=1.8e9, offset=99)
    second = snapshots.write(state(), later)
    assert snapshots.manifest(first).digest == snapshots.manifest(second).digest


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.arange(6, dtype=np.int64), "b": np.zeros(1)},
        {"a": np.arange(6, dtype=np.int32), "c": np.zeros(1)},
        {"a": np.arange(6, dtype=np.uint32), "b": np.zeros(1)},
        {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.zeros(1)},
        {"a": np.arange(6, dtype=np.int32)[::-1], "b": np.zeros(1)},
        {"a": np.arange(6, dtype=np.int32), "b": np.zeros(0)},
        {"a": np.arange(6, dtype=np.int32), "b": -np.zeros(1)},
        {"a": np.arange(6, dtype=np.int32)},
    ],
)
def test_the_digest_tells_states_apart(other):
    assert state_digest(other) != state_digest(
        {"a": np.arange(6, dtype=np.int32), "b": np.zeros(1)}
    )


def test_equal_snapshots_are_equal_files(snapshots):
    contents = {snapshots.write(state(), manifest(1)).read_bytes() for _ in range(10)}
    assert len(contents) == 1


def test_reading_makes_no_folder(snapshots):
    assert snapshots.newest() is None
    assert snapshots.prune() == []
    assert not snapshots.directory.exists()


def test_the_newest_is_of_the_highest_epoch_then_sequence(snapshots):
    for epoch, sequence in ((1, 999_999_999_999), (2, 3), (1, 10**12), (2, 20)):
        snapshots.write(state(), manifest(sequence, epoch))
    found = snapshots.newest(lambda _: SHAPE)
    assert found is not None
    assert (found[1].epoch, found[1].sequence) == (2, 20)
    assert [snapshots.manifest(path).sequence for path in snapshots.paths()] == [
        999_999_999_999,
        10**12,
        3,
        20,
    ]


def test_no_flipped_bit_of_the_header_passes_unnoticed(snapshots):
    path = snapshots.write(state(), manifest(1))
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in range(header):
        flip(path, place, bit=place % 8)
        with pytest.raises(SnapshotError, match="damaged"):
            snapshots.load(path)
        path.write_bytes(whole)
    assert snapshots.load(path)


def test_no_flipped_bit_of_the_arrays_passes_unnoticed(snapshots):
    path = snapshots.write(state(), manifest(1))
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = random.Random(4)
    for _ in range(100):
        flip(path, rng.randrange(header, len(whole)), rng.randrange(8))
        with pytest.raises(SnapshotError, match=r"snapshot-e0001-s.*damaged.*older snapshot"):
            snapshots.load(path)
        path.write_bytes(whole)


def test_a_truncated_file_is_damaged_and_the_one_before_is_used(snapshots):
    snapshots.write(state(1), manifest(1))
    path = snapshots.write(state(2), manifest(2))
    whole = path.read_bytes()
    for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with capture_logs() as logs:
            found = snapshots.newest(lambda _: SHAPE)
        assert found is not None
        assert found[1].sequence == 1
        assert [(entry["log_level"], entry["event"]) for entry in logs] == [
            ("warning", "a snapshot was passed over")
        ]
        assert logs[0]["path"] == str(path)


def test_there_is_none_when_all_are_damaged(snapshots):
    for sequence in (1, 2):
        flip(snapshots.write(state(), manifest(sequence)), -1, 0)
    with capture_logs() as logs:
        assert snapshots.newest() is None
    assert len(logs) == 2


def test_a_newer_format_is_refused_not_passed_over(snapshots):
    snapshots.write(state(), manifest(1))
    path = snapshots.directory / "snapshot-e0001-s000000000002.safetensors"
    save_file({}, path, metadata=seal(b'{"format":2,"unheard_of":1}'))
    for read in (snapshots.load, snapshots.manifest):
        with pytest.raises(SnapshotError, match=r"s000000000002.*format 2.*update Headwater"):
            read(path)
    with pytest.raises(SnapshotError, match="format 2"):
        snapshots.newest()


def test_another_shape_is_refused_not_passed_over(snapshots):
    path = snapshots.write(state(), manifest(1))
    with pytest.raises(SnapshotError) as caught:
        snapshots.newest(lambda _: {**SHAPE, "sequence.dim": 128, "layers": 2})
    message = str(caught.value)
    assert str(path) in message
    assert "sequence.dim is 64 there and 128 in the settings" in message
    assert "layers is None there and 2 in the settings" in message
    assert "c0ffee" not in message


def test_what_another_version_wrote_is_not_blamed_on_the_settings(snapshots):
    path = snapshots.write(state(), manifest(1))
    with pytest.raises(SnapshotError) as caught:
        snapshots.newest(lambda _: {**SHAPE, "state.layout": 9, "sequence.dim": 128})
    message = str(caught.value)
    assert f"{path} is of another version of Headwater: its layout is None" in message
    assert "settings" not in message
    assert f"move {path.parent} away" in message


def test_a_file_that_was_pruned_meanwhile_is_no_damage(snapshots, monkeypatch):
    snapshots.write(state(), manifest(5))
    kept = snapshots.paths()
    gone = snapshots.directory / "snapshot-e0001-s000000000009.safetensors"
    with pytest.raises(SnapshotError, match="gone"):
        snapshots.load(gone)
    listings = iter([[gone], kept, kept])
    monkeypatch.setattr(snapshots, "paths", lambda: next(listings))
    with capture_logs() as logs:
        found = snapshots.newest()
    assert found is not None
    assert found[1].sequence == 5
    assert not logs


def test_prune_keeps_the_newest_and_says_from_where_updates_are_needed(snapshots):
    for sequence in (4, 8, 15, 16):
        snapshots.write(state(), manifest(sequence))
    assert snapshots.prune()[0].sequence == 15
    assert [snapshots.manifest(path).sequence for path in snapshots.paths()] == [15, 16]


def test_damaged_snapshots_push_no_good_one_out(snapshots):
    for sequence in (1, 2, 3, 4, 5):
        path = snapshots.write(state(), manifest(sequence))
        if sequence in (3, 4):
            path.write_bytes(path.read_bytes()[:50])
    with capture_logs() as logs:
        assert snapshots.prune()[0].sequence == 2
    assert len(logs) == 2
    assert len(snapshots.paths()) == 4
    snapshots.write(state(), manifest(6))
    assert snapshots.prune()[0].sequence == 5
    assert len(snapshots.paths()) == 2


def test_a_leftover_of_a_crash_is_never_read_and_goes_with_the_next_write(snapshots):
    path = snapshots.write(state(1), manifest(1))
    leftover = path.with_name("snapshot-e0001-s000000000002.safetensors.partial")
    leftover.write_bytes(path.read_bytes()[:200])
    foreign = snapshots.directory / "notes.txt"
    foreign.write_text("keep me")
    found = snapshots.newest()
    assert found is not None
    assert found[1].sequence == 1
    assert leftover.exists()
    snapshots.write(state(3), manifest(3))
    assert not leftover.exists()
    assert foreign.exists()


def test_a_state_that_cannot_be_stored_leaves_nothing_behind(snapshots):
    snapshots.write(state(1), manifest(1))
    with pytest.raises(SnapshotError, match="untouched"):
        snapshots.write({"names": np.array(["a"])}, manifest(2))
    assert len(list(snapshots.directory.iterdir())) == 1


def run_out(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def halfway(arrays, metadata):
    begin, parts = honest_head(arrays, metadata)
    return begin, (part if place < 2 else run_out() for place, part in enumerate(parts))


honest_head = head


@pytest.mark.parametrize(("where", "full"), [("head", halfway), ("sync_folder", run_out)])
def test_a_disk_that_fills_up_halfway_leaves_what_was_there(snapshots, monkeypatch, where, full):
    snapshots.write(state(1), manifest(1))
    before = snapshots.paths()[0].read_bytes()
    monkeypatch.setattr(_snapshots, where, full)
    with pytest.raises(SnapshotError, match="No space left on device"):
        snapshots.write(state(2), manifest(2))
    assert not list(snapshots.directory.glob("*.partial"))
    assert snapshots.paths()[0].read_bytes() == before


def test_what_was_begun_is_of_the_state_as_it_was_and_read_by_nobody_before_its_end(snapshots):
    snapshots.write(state(1), manifest(1))
    changing = state(2)
    finish = snapshots.begin(changing, manifest(2))
    changing["rows"][:] = 0
    found = snapshots.newest()
    assert found is not None
    assert found[1].sequence == 1
    path = finish()
    assert path == snapshots.paths()[-1]
    assert (
        path.read_bytes()
        == Snapshots(snapshots.directory.parent / "other", 2)
        .write(state(2), manifest(2))
        .read_bytes()
    )


def test_it_is_the_file_that_the_library_of_safetensors_writes(snapshots, tmp_path):
    path = snapshots.write(state(3), manifest(1))
    loaded, described = snapshots.load(path)
    sealed = seal(msgspec.json.encode(described, order="deterministic"))
    save_file({name: array.copy() for name, array in loaded.items()}, tmp_path / "it", sealed)
    assert path.read_bytes() == (tmp_path / "it").read_bytes()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from headwater.deploy import Manifest, Snapshots

snapshots = Snapshots(Path(sys.argv[1]), keep=2)
sequence = int(sys.argv[2])
while True:
    sequence += 1
    content = {"sequence": np.full(200_000, sequence)}
    snapshots.write(content, Manifest(1, 1, sequence, sequence, {}, 0.0))
    snapshots.prune()
    print(sequence, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_its_last_snapshot_usable(snapshots):
    sequence = 0
    rng = random.Random(1)
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(snapshots.directory), str(sequence)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(rng.random() * 0.1)
            writer.kill()
            acknowledged = [int(line) for line in writer.stdout.read().split()]
        with capture_logs() as logs:
            found = snapshots.newest()
        assert found is not None
        content, described = found
        assert not logs
        assert described.sequence >= max(acknowledged, default=sequence + 1)
        assert np.array_equal(content["sequence"], np.full(200_000, described.sequence))
        sequence = described.sequence
