"""What all wire formats share: JSON into elements, ids, and refusals that name the field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple, TypeVar

import msgspec

from headwater.errors import InvalidInput, TooLarge

Identifier = int | str
"""An id as it is sent; 5 and "5" are the same one."""

MAX_ID_LENGTH = 256
MAX_FLOAT32 = 3.4e38
"""What is computed on in single precision may not be larger: there it would be infinite."""
ANONYMOUS = "anon:"

T = TypeVar("T", bound=msgspec.Struct)

_UNKNOWN = "Object contains unknown field `"
_MISSING = re.compile(r"Object missing required field `(.+)`$")
_MISTYPED = re.compile(r"Expected `(.+)`, got `(.+)`$")
_AT = re.compile(r"(?P<what>.*) - at `\$\.(?P<field>\w+)(?P<inside>.*)`$", re.DOTALL)

_ELSEWHERE = {
    "event": "type",
    "event_type": "type",
    "rating": "value",
    "basket_id": "session_id",
    "genres": "categories",
    "category": "categories",
    "k": "n",
}
"""What fields are called in files, or by others: for a remedy, never to guess."""

_KINDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


class Refused(NamedTuple):
    """An element that can't be used: the field at fault, why, and the bytes as they came."""

    field: str
    reason: str
    body: bytes
    event_id: str | None = None


def identifier(value: Identifier, field: str) -> str:
    """The id as the text that it is stored under.

    Raises:
        InvalidInput: it is empty, or longer than 256 characters.

    >>> identifier(5, "item_id") == identifier("5", "item_id")
    True
    """
    text = value if type(value) is str else str(value)
    if 0 < len(text) <= MAX_ID_LENGTH:
        return text
    if not text:
        raise InvalidInput(field, "is empty")
    raise InvalidInput(field, f"is longer than {MAX_ID_LENGTH} characters")


def user(user_id: Identifier | None, anonymous_id: Identifier | None) -> str | None:
    """The user that an event or a request names, if it names one.

    ``anonymous_id`` x stands for the user ``anon:x``, so that what is stored can
    be sent again as a ``user_id``.

    Raises:
        InvalidInput: both are given, or the one that is given is no id.
    """
    if user_id is not None and anonymous_id is not None:
        raise InvalidInput("anonymous_id", "can't stand beside user_id; send one of the two")
    if anonymous_id is not None:
        identifier(anonymous_id, "anonymous_id")
        return identifier(f"{ANONYMOUS}{anonymous_id}", "anonymous_id")
    return None if user_id is None else identifier(user_id, "user_id")


def split(body: bytes) -> tuple[list[msgspec.Raw], bool]:
    """The elements of a JSON array (True), or the one object that the body is (False).

    The elements are JSON, but not looked into yet.

    Raises:
        InvalidInput: "body" is neither, isn't JSON, isn't UTF-8 or is nested too deeply.
    """
    try:
        start = body.decode("utf-8").lstrip(" \t\r\n")[:1]
        if start == "[":
            return msgspec.json.decode(body, type=list[msgspec.Raw]), True
        whole = msgspec.json.decode(body, type=msgspec.Raw)
    except UnicodeDecodeError as error:
        raise InvalidInput("body", f"is not UTF-8, at byte {error.start}") from None
    except RecursionError:
        raise InvalidInput("body", "is nested too deeply") from None
    except msgspec.DecodeError as error:
        if not start:
            raise InvalidInput("body", "is empty") from None
        several = "; send several as a list, [..., ...]" if "trailing" in str(error) else ""
        raise InvalidInput("body", f"is not JSON: {error}{several}") from None
    if start != "{":
        raise InvalidInput("body", "is neither an object nor a list of objects")
    return [whole], False


def single(body: bytes, what: str) -> msgspec.Raw:
    """The one object that the body is.

    Raises:
        InvalidInput: as ``split``, or the body is a list.
    """
    raws, many = split(body)
    if many:
        raise InvalidInput("body", f"is a list; send one {what}")
    return raws[0]


def lines(body: bytes, most: int, what: str) -> Sequence[bytes | msgspec.Raw]:
    """The elements of a JSON array, or the lines of JSONL; not looked into yet.

    Raises:
        TooLarge: there are more than ``most``.
        InvalidInput: there are none, or the array isn't JSON.
    """
    raws: Sequence[bytes | msgspec.Raw]
    if body.lstrip(b" \t\r\n").startswith(b"["):
        raws, _ = split(body)
    else:
        raws = [line for line in body.splitlines() if line.strip()]
        if not raws:
            raise InvalidInput("body", f"is empty; send a JSON array of {what}, or one per line")
    if len(raws) > most:
        raise TooLarge("body", f"holds {len(raws)} {what}; send at most {most} at a time")
    return raws


def decode(raw: bytes | msgspec.Raw, kind: type[T], element: str) -> T:
    """One element as the struct ``kind``, a noun's form on the wire.

    Raises:
        InvalidInput: names the first field that doesn't fit, or ``element`` where it is no object
            at all.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), kind, element) from None
    except RecursionError:
        raise InvalidInput(element, "is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(element, f"is not JSON: {error}") from None


def convert(row: dict[str, object], kind: type[T], element: str) -> T:
    """Like ``decode``, from values that were parsed already."""
    try:
        return msgspec.convert(row, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), kind, element) from None


def _refusal(message: str, kind: type[msgspec.Struct], element: str) -> InvalidInput:
    """What msgspec's message says, in our words: only its text names the field at fault."""
    if message.startswith(_UNKNOWN):
        return _unknown(message[len(_UNKNOWN) : -1], kind.__struct_fields__, element)
    if missing := _MISSING.match(message):
        return InvalidInput(missing[1], "is missing")
    field, what, verb = element, message, "be"
    if at := _AT.match(message):
        field, what, verb = at["field"], at["what"], "hold" if at["inside"] else "be"
    if mistyped := _MISTYPED.match(what):
        wanted = [_KINDS.get(one, one) for one in mistyped[1].split(" | ") if one != "null"]
        given = _KINDS.get(mistyped[2], mistyped[2])
        return InvalidInput(field, f"must {verb} {' or '.join(wanted)}, not {given}")
    return InvalidInput(field, f"can't be used: {what[0].lower()}{what[1:]}")


def known_fields(sent: Iterable[str], kind: type[msgspec.Struct], element: str) -> None:
    """Raises ``InvalidInput`` for the first name that isn't a field of ``kind``."""
    for name in sent:
        if name not in kind.__struct_fields__:
            raise _unknown(name, kind.__struct_fields__, element)


def _unknown(name: str, known: Sequence[str], element: str) -> InvalidInput:
    if not name:
        return InvalidInput(element, "has a field without a name")
    near = [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in known else []
    near = near or get_close_matches(name[:64], known, 1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return InvalidInput(name[:64], f"is not a known field; {remedy}")


def text(value: str | None, field: str, longest: int) -> str | None:
    """A text within its length; empty counts as not given.

    Raises:
        InvalidInput: it is longer than ``longest`` characters.
    """
    if value is not None and len(value) > longest:
        raise InvalidInput(field, f"is longer than {longest} characters")
    return value or None
