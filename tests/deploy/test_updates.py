from __future__ import annotations

from dataclasses import fields, replace

import hypothesis.extra.numpy as npst
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from headwater.deploy import decode, digest, encode
from headwater.deploy._sealing import seal
from headwater.errors import UpdateError
from headwater.types import Held, SettingChange, TableRows, Update

NAMES = st.text(max_size=8)
ROWS = npst.arrays(np.int32, st.integers(0, 5))
FLOATS = npst.arrays(np.float32, npst.array_shapes(min_dims=0, max_dims=3, min_side=0))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw):
    rows = draw(ROWS)
    width = draw(st.integers(0, 4))
    return TableRows(rows, draw(npst.arrays(np.float32, (len(rows), width))))


UPDATES = st.builds(
    Update,
    epoch=st.integers(0, 2**40),
    sequence=st.integers(0, 2**40),
    trained_through=st.integers(0, 2**62),
    batch_ends=st.lists(st.integers(0, 2**62), max_size=4).map(tuple),
    held=st.lists(st.builds(Held, through=st.integers(0, 2**62), guard=NAMES, reason=NAMES)).map(
        tuple
    ),
    tables=st.dictionaries(NAMES, tables(), max_size=3),
    tombstones=st.dictionaries(NAMES, ROWS, max_size=3),
    dense=st.dictionaries(NAMES, FLOATS, max_size=3),
    settings=st.lists(
        st.builds(
            SettingChange,
            offset=st.integers(0, 2**62),
            name=NAMES,
            before=FINITE,
            after=FINITE,
            because=st.dictionaries(NAMES, FINITE, max_size=3),
        ),
        max_size=2,
    ).map(tuple),
)


def example() -> Update:
    rng = np.random.default_rng(7)
    return Update(
        epoch=1,
        sequence=12,
        trained_through=340,
        batch_ends=(300, 340),
        tables={
            "sequence.items": TableRows(
                np.array([3, 1], np.int32), rng.normal(size=(2, 3)).astype(np.float32)
            ),
            "sequence.bias": TableRows(np.zeros(0, np.int32), np.zeros((0, 1), np.float32)),
        },
        tombstones={"sequence.items": np.array([9], np.int32)},
        dense={"mixture.hidden": rng.normal(size=(2, 2)).astype(np.float32)},
        settings=(SettingChange(340, "mixture.learning_rate", 0.002, 0.003, {"b": 1.0, "a": 2.0}),),
    )


def assert_same(one: Update, other: Update) -> None:
    for name in {part.name for part in fields(Update)} - {"tables", "tombstones", "dense"}:
        assert getattr(one, name) == getattr(other, name)
    assert one.tables.keys() == other.tables.keys()
    for name, table in one.tables.items():
        same_array(table.rows, other.tables[name].rows)
        same_array(table.values, other.tables[name].values)
    for ours, theirs in ((one.tombstones, other.tombstones), (one.dense, other.dense)):
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            same_array(array, theirs[name])


def same_array(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


@given(UPDATES)
def test_round_trip_is_exact(update):
    payload = encode(update)
    assert_same(decode(payload), update)
    assert encode(decode(payload)) == payload


def test_decoded_arrays_are_views_of_the_payload():
    payload = encode(example())
    found = decode(payload)
    arrays = [found.tables["sequence.items"].values, *found.dense.values()]
    assert all(np.shares_memory(array, np.frombuffer(payload, np.uint8)) for array in arrays)
    assert not any(array.flags.writeable for array in arrays)


def test_what_stands_behind_the_last_array_is_damage():
    with pytest.raises(UpdateError, match="behind the last array"):
        decode(encode(example()) + b"more")


def test_equal_updates_give_equal_bytes_however_they_were_built():
    update = example()
    strided = np.zeros((4, 3), np.float32)
    strided[::2] = update.tables["sequence.items"].values
    reordered = replace(
        update,
        tables={
            "sequence.bias": update.tables["sequence.bias"],
            "sequence.items": TableRows(update.tables["sequence.items"].rows, strided[::2]),
        },
        dense={"mixture.hidden": np.asfortranarray(update.dense["mixture.hidden"])},
        settings=(SettingChange(340, "mixture.learning_rate", 0.002, 0.003, {"a": 2.0, "b": 1.0}),),
    )
    assert {encode(update) for _ in range(20)} == {encode(reordered)}
    assert digest(encode(update)) == digest(encode(reordered))


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2},
        {"sequence": 13},
        {"trained_through": 341},
        {"batch_ends": (340,)},
        {"held": (Held(300, "loss", "too high"),)},
        {"tombstones": {}},
        {"dense": {}},
        {"settings": ()},
    ],
)
def test_a_different_update_has_a_different_digest(change):
    assert digest(encode(replace(example(), **change))) != digest(encode(example()))


def test_no_flipped_bit_passes_unnoticed():
    payload = encode(example())
    for place in range(len(payload)):
        for bit in range(8):
            damaged = bytearray(payload)
            damaged[place] ^= 1 << bit
            with pytest.raises(UpdateError):
                decode(bytes(damaged))


def test_a_payload_without_checksum_would_pass_so_it_is_refused():
    with pytest.raises(UpdateError, match="no Headwater header"):
        decode(save({"tables/rows/a": np.zeros(1, np.int32)}))


def test_no_truncation_or_addition_passes_unnoticed():
    payload = encode(example())
    for length in range(len(payload)):
        with pytest.raises(UpdateError, match="damaged"):
            decode(payload[:length])
    with pytest.raises(UpdateError, match="damaged"):
        decode(payload + b"\0")


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(data):
    with pytest.raises(UpdateError):
        decode(data)


def test_a_newer_format_asks_for_a_newer_headwater():
    document = msgspec.json.encode({"format": 99, "unheard_of": True})
    with pytest.raises(UpdateError, match=r"format 99.*up to 1.*update Headwater"):
        decode(save({}, metadata=seal(document)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tombstones": {"a": np.zeros(2, np.int64)}}, "tombstones/rows/a is int64"),
        ({"tombstones": {"a": np.zeros((2, 1), np.int32)}}, r"shape \(2, 1\)"),
        ({"dense": {"w": np.zeros(2)}}, "dense/values/w is float64"),
        (
            {"tables": {"t": TableRows(np.zeros(2, np.int32), np.zeros((3, 1), np.float32))}},
            "table t has rows of shape",
        ),
        (
            {"tables": {"t": TableRows(np.zeros(2, np.int32), np.zeros(2, np.float32))}},
            "table t has rows of shape",
        ),
        (
            {"settings": (SettingChange(1, "rate", 1.0, float("nan"), {}),)},
            "setting rate holds a number",
        ),
    ],
)
def test_what_could_not_be_read_back_is_not_written(change, message):
    with pytest.raises(UpdateError, match=message):
        encode(replace(example(), **change))
