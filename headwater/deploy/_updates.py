"""The bytes of an update on the updates log: safetensors, with JSON in its header."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from headwater.deploy._sealing import (
    body,
    bytes_digest,
    dense_array,
    pack,
    seal,
    state_digest,
    unseal,
    views,
)
from headwater.errors import UpdateError
from headwater.types import Held, Pace, SettingChange, State, TableRows, Update

FORMAT = 1
"""The layout that :func:`encode` writes; a reader refuses what is newer."""


class _Header(msgspec.Struct, frozen=True):
    format: int
    epoch: int
    sequence: int
    trained_through: int
    batch_ends: tuple[int, ...]
    settings: tuple[SettingChange, ...]
    digest: str  # of the arrays
    held: tuple[Held, ...] = ()
    paces: tuple[Pace, ...] = ()
    gradient_through: int = 0


def digest(payload: bytes) -> str:
    """BLAKE2b-256 of an encoded update in hexadecimal: two trainers that learned the same agree.

    It is that of the header, which holds the digest of the arrays: they are read once.
    """
    return bytes_digest(payload[: body(payload)])


def encode(update: Update) -> bytes:
    """The update as bytes; equal updates, however their dicts were filled, give equal bytes.

    Raises:
        UpdateError: an array hasn't the dtype or shape that ``Update`` promises, or a setting
            isn't finite.
    """
    arrays = _arrays(update)
    for change in update.settings:
        if not all(map(math.isfinite, (change.before, change.after, *change.because.values()))):
            raise UpdateError(
                f"the change of setting {change.name} holds a number that isn't finite"
            )
    header = _Header(
        format=FORMAT,
        epoch=update.epoch,
        sequence=update.sequence,
        trained_through=update.trained_through,
        batch_ends=tuple(update.batch_ends),
        settings=tuple(update.settings),
        held=tuple(update.held),
        paces=tuple(update.paces),
        gradient_through=update.gradient_through,
        digest=state_digest(arrays),
    )
    return pack(arrays, seal(msgspec.json.encode(header, order="deterministic")))


def decode(payload: bytes) -> Update:
    """The update that :func:`encode` was given; names are in alphabetical order.

    Arrays are views of ``payload``, not to be written to.

    Raises:
        UpdateError: the bytes are damaged, or were written in a newer format.
    """
    try:
        arrays, metadata = views(payload)
        document = unseal(metadata)
    except (ValueError, TypeError, KeyError, msgspec.DecodeError) as error:
        raise UpdateError(
            f"an update's bytes are damaged ({error}); start from a snapshot"
        ) from None
    form = msgspec.json.decode(document, type=_Form).format
    if form > FORMAT:
        raise UpdateError(
            f"an update has format {form}, this version reads up to {FORMAT}; update Headwater"
        )
    header = msgspec.json.decode(document, type=_Header)
    if state_digest(arrays) != header.digest:
        raise UpdateError(
            f"the arrays of update {header.sequence} don't match their checksum; "
            "start from a snapshot"
        )
    return _update(header, arrays)


class _Form(msgspec.Struct):
    format: int


def _arrays(update: Update) -> State:
    arrays: State = {}
    for name, table in update.tables.items():
        arrays[f"tables/rows/{name}"] = table.rows
        arrays[f"tables/values/{name}"] = table.values
        if table.values.ndim != 2 or len(table.rows) != len(table.values):
            raise UpdateError(
                f"table {name} has rows of shape {table.rows.shape} and values of shape "
                f"{table.values.shape}; expected (R,) and (R, D)"
            )
    for name, rows in update.tombstones.items():
        arrays[f"tombstones/rows/{name}"] = rows
    for name, values in update.dense.items():
        arrays[f"dense/values/{name}"] = values
    for name, array in arrays.items():
        kind = name.split("/", 2)[1]
        expected = np.dtype(np.int32 if kind == "rows" else np.float32)
        if array.dtype != expected or (kind == "rows" and array.ndim != 1):
            raise UpdateError(
                f"{name} is {array.dtype} of shape {array.shape}; expected {expected}"
                + (" of shape (R,)" if kind == "rows" else "")
            )
    return {name: dense_array(array) for name, array in arrays.items()}


def _update(header: _Header, arrays: State) -> Update:
    tables: dict[str, TableRows] = {}
    tombstones, dense = {}, {}
    for path in sorted(arrays):
        part, kind, name = path.split("/", 2)
        if part == "dense":
            dense[name] = arrays[path]
        elif part == "tombstones":
            tombstones[name] = arrays[path]
        elif kind == "rows":
            tables[name] = TableRows(arrays[path], arrays[f"tables/values/{name}"])
    return Update(
        epoch=header.epoch,
        sequence=header.sequence,
        trained_through=header.trained_through,
        batch_ends=header.batch_ends,
        tables=tables,
        tombstones=tombstones,
        dense=dense,
        settings=header.settings,
        held=header.held,
        paces=header.paces,
        gradient_through=header.gradient_through,
    )
