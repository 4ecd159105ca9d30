"""The settings as pages: the annotated file of ``headwater init`` and a page of the docs.

Both are made from the settings' model (``headwater.config.Config``): keys,
defaults, bounds, and the docstring under each field.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headwater._config_layers import named_tables, sections

_WIDTH = 96


def annotated_toml(model: type[BaseModel], tables: Mapping[str, Mapping[str, BaseModel]]) -> str:
    """A settings file with every key, commented out, at its default, under its documentation.

    A key that isn't set by default stands at its example. ``tables`` holds the
    built-in entries of the settings that are named tables:
    ``{"events": {"view": EventType(...), ...}}``.
    """
    parts = [
        _comment(
            "Settings of Headwater. Every key stands here at its default: remove the `#` before "
            "one to change it. Environment variables win over this file "
            "(HEADWATER_SEQUENCE__LAYERS=3), flags win over both."
        )
    ]
    parts += [_key(key, field) for key, field in _plain(model).items()]
    for name, section in sections(model).items():
        lines = [_comment(_text(section.field)), f"[{name}]"]
        lines += [_key(key, field) for key, field in _plain(section.table).items()]
        parts.append("\n".join(lines))
    for name, field in model.model_fields.items():
        table_model = named_tables(field)
        if table_model is not None:
            parts.append(_entries(name, field, table_model, tables[name]))
    return "\n\n".join(parts) + "\n"


def _entries(
    name: str, field: FieldInfo, table: type[BaseModel], entries: Mapping[str, BaseModel]
) -> str:
    lines = [_comment(_text(field))]
    lines += [_comment(f"{key}: {_text(known)}") for key, known in table.model_fields.items()]
    lines.append(f"[{name}]")
    for entry, values in entries.items():
        inner = ", ".join(f"{key} = {_toml(value)}" for key, value in values)
        lines.append(f"# {entry} = {{ {inner} }}")
    return "\n".join(lines)


def _key(key: str, field: FieldInfo) -> str:
    if field.default is None:
        example = field.examples[0] if field.examples else None
        return f"{_comment(_text(field) + ' Not set by default.')}\n# {key} = {_toml(example)}"
    return f"{_comment(_text(field))}\n# {key} = {_toml(field.default)}"


def _comment(text: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent="## ", subsequent_indent="## ", break_on_hyphens=False
    )


def _toml(value: Any) -> str:
    # Numbers, strings, booleans and lists of them are written alike in JSON and in TOML.
    return json.dumps(value)


def _text(field: FieldInfo) -> str:
    return " ".join((field.description or "").replace("``", "`").split())


def configuration_markdown(
    model: type[BaseModel],
    tables: Mapping[str, Mapping[str, BaseModel]],
    reserved: Mapping[str, str],
) -> str:
    """The page ``docs/configuration.md``: a table per section of the settings file."""
    parts = [
        "# Configuration",
        "<!-- Made from headwater/config.py; tests/test_config.py says how. -->",
        "Settings come from `headwater.toml` (or the file that `--config` names); `HEADWATER_*` "
        "environment variables win over the file, and flags win over both. `headwater init` "
        "writes a file with every key at its default, and `headwater config` prints what is in "
        "effect. A key or variable that isn't known is an error, and so is a number that isn't "
        "finite; the message names the key, who set it, and what was probably meant.",
        "A variable's name is the key's in capitals, with two underscores for each dot: "
        "`sequence.layers` is `HEADWATER_SEQUENCE__LAYERS`, and the weight of a purchase is "
        "`HEADWATER_EVENTS__PURCHASE__WEIGHT`. Lists are written as JSON.",
        _rows(_plain(model)),
    ]
    for name, section in sections(model).items():
        parts += [f"## `[{name}]`", _text(section.field)]
        parts.append(_rows(_plain(section.table)))
    for name, field in model.model_fields.items():
        table_model = named_tables(field)
        if table_model is not None:
            keys = table_model.model_fields
            parts += [f"## `[{name}.<name>]`", _text(field), _rows(keys), "Built in:"]
            parts.append(_built_in(list(keys), tables[name]))
    parts += [
        "## Other variables",
        "These begin with `HEADWATER_` and aren't settings:",
        _table(("variable", "what"), [(f"`{name}`", what) for name, what in reserved.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _plain(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields that are no tables of their own."""
    return {
        key: field
        for key, field in model.model_fields.items()
        if key not in sections(model) and named_tables(field) is None
    }


def _rows(fields: Mapping[str, FieldInfo]) -> str:
    return _table(
        ("key", "default", "allowed", "what"),
        [
            (
                f"`{key}`",
                "not set" if field.default is None else f"`{_toml(field.default)}`",
                _allowed(field),
                _text(field),
            )
            for key, field in fields.items()
        ],
    )


def _built_in(keys: list[str], entries: Mapping[str, BaseModel]) -> str:
    return _table(
        ("name", *keys),
        [
            (f"`{name}`", *(f"`{_toml(getattr(values, key))}`" for key in keys))
            for name, values in entries.items()
        ],
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


_KINDS: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "`true` or `false`",
}

_SIGNS = {
    annotated_types.Ge: ("ge", "≥"),
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Le: ("le", "≤"),
    annotated_types.Lt: ("lt", "<"),
}


def _allowed(field: FieldInfo) -> str:
    return ", ".join([_kind(field.annotation), *_bounds(field.metadata)])


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return f"list (each: {_kind(inner[0])})"
    if origin is Annotated:
        return ", ".join([_kind(inner[0]), *_bounds(inner[1].metadata)])
    if annotation in _KINDS:
        return _KINDS[annotation]
    (given,) = (part for part in inner if part is not type(None))
    return _kind(given)


def _bounds(rules: Iterable[Any]) -> list[str]:
    bounds = []
    for rule in rules:
        if type(rule) in _SIGNS:
            attribute, sign = _SIGNS[type(rule)]
            bounds.append(f"{sign} {getattr(rule, attribute):.10g}")
        elif isinstance(rule, annotated_types.MinLen):
            bounds.append(f"at least {rule.min_length} long")
    return bounds
