"""Arrays and one JSON document in a safetensors container where no changed bit goes unnoticed.

The document stands in the container's header, behind its own checksum, and
holds the digest of the arrays: a reader can trust the document without reading
the arrays, and the arrays once it has the document.
"""

from __future__ import annotations

from hashlib import blake2b
from mmap import mmap
from typing import Any

import msgspec
import numpy as np

from headwater.types import State

_KEY = "headwater"
_DIGEST_BYTES = 32
DIGEST_CHARACTERS = 2 * _DIGEST_BYTES
_DTYPES: dict[str, np.dtype[Any]] = {
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F16": np.dtype("<f2"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""Of safetensors' names, in the order in which its own library puts arrays."""

_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class BrokenSeal(ValueError):
    """The document isn't there, or isn't what was written."""


def bytes_digest(data: bytes) -> str:
    """BLAKE2b-256 of ``data`` in hexadecimal."""
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def state_digest(state: State) -> str:
    """BLAKE2b-256 over the names in order, and each array's dtype, shape and bytes.

    Equal for two states exactly when their arrays are equal bit for bit; the
    order in which a dict was filled, and strides, don't matter.

    >>> import numpy as np
    >>> one = {"a": np.arange(4), "b": np.zeros(2)}
    >>> other = {"b": np.zeros(2), "a": np.arange(8)[:4]}
    >>> state_digest(one) == state_digest(other)
    True
    >>> state_digest(one) == state_digest({"a": np.arange(4).reshape(2, 2), "b": np.zeros(2)})
    False
    """
    total = blake2b(digest_size=_DIGEST_BYTES)
    for name in sorted(state):
        array = dense_array(state[name])
        total.update(repr((name, array.dtype.str, array.shape)).encode("utf-8", "surrogatepass"))
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def dense_array(array: np.ndarray) -> np.ndarray:
    """The array in C order and little-endian, copied only where it has to be.

    safetensors writes from a bare pointer and would store a strided view wrongly.
    """
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def seal(document: bytes) -> dict[str, str]:
    """The container's metadata for a JSON document.

    It is a single key because safetensors writes several in random order, and
    equal content must give equal bytes.
    """
    return {_KEY: bytes_digest(document) + document.decode()}


def unseal(metadata: dict[str, str] | None) -> bytes:
    """The document that :func:`seal` was given.

    Raises:
        BrokenSeal: there is none, or a bit of it has changed.
    """
    sealed = (metadata or {}).get(_KEY)
    if sealed is None:
        raise BrokenSeal("it holds no Headwater header")
    checksum, document = sealed[:DIGEST_CHARACTERS], sealed[DIGEST_CHARACTERS:].encode()
    if bytes_digest(document) != checksum:
        raise BrokenSeal("its header doesn't match its checksum")
    return document


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def head(arrays: State, metadata: dict[str, str]) -> tuple[bytes, list[memoryview]]:
    """What a safetensors container begins with, and the bytes of each array, in their order there.

    Args:
        arrays: dense ones, see :func:`dense_array`.

    Raises:
        ValueError: an array has a dtype that safetensors doesn't hold.
    """
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise ValueError(f"{name} is {array.dtype}, which safetensors doesn't hold")
    kinds = list(_DTYPES.values())
    ordered = sorted(arrays.items(), key=lambda item: (kinds.index(item[1].dtype), item[0]))
    entries: dict[str, dict[str, str] | _Tensor] = {"__metadata__": metadata}
    end = 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        entries[name] = _Tensor(_NAMES[array.dtype], list(array.shape), (start, end))
    header = msgspec.json.encode(entries)
    header += b" " * (-len(header) % 8)
    parts = [array.reshape(-1).view(np.uint8).data for _, array in ordered]
    return len(header).to_bytes(8, "little") + header, parts


def pack(arrays: State, metadata: dict[str, str]) -> bytes:
    """A safetensors container, the bytes that its own library writes, of each array copied once.

    Args:
        arrays: dense ones, see :func:`dense_array`.
    """
    begin, parts = head(arrays, metadata)
    return b"".join([begin, *parts])


def body(container: bytes | mmap) -> int:
    """Where the arrays begin: behind the length of the header, and the header."""
    return 8 + int.from_bytes(container[:8], "little")


def views(container: bytes | mmap) -> tuple[State, dict[str, str] | None]:
    """The arrays of a safetensors container, uncopied, and its ``__metadata__``.

    They can be written to where the container can.

    Raises:
        ValueError, TypeError, KeyError, msgspec.DecodeError: it is damaged.
    """
    start = body(container)
    entries = msgspec.json.decode(container[8:start], type=dict[str, msgspec.Raw])
    metadata = msgspec.json.decode(entries.pop("__metadata__", "null"), type=dict[str, str] | None)
    arrays: State = {}
    end = 0
    for name, entry in entries.items():
        tensor = msgspec.json.decode(entry, type=_Tensor)
        array = np.ndarray(tensor.shape, _DTYPES[tensor.dtype], container, start + end)
        if tensor.data_offsets != (end, end + array.nbytes):
            raise ValueError(f"{name} isn't where it should be")
        arrays[name], end = array, end + array.nbytes
    if start + end != len(container):
        raise ValueError("they go on behind the last array")
    return arrays, metadata
