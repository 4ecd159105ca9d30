"""Where settings come from: a TOML file, under environment variables, under flags.

Each source is a *layer*: its place, for messages, and its nested values. The
settings themselves are a pydantic model, given as ``model``
(``headwater.config.Config``).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from headwater.errors import ConfigError


class Layer(NamedTuple):
    place: str
    values: Mapping[str, Any]


def read_toml(file: Path) -> Layer:
    """Raises ``ConfigError`` with line and column where the file isn't TOML."""
    try:
        return Layer(f"in {file}", tomllib.loads(file.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text, at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror}") from None


def read_environment(
    model: type[BaseSettings], prefix: str, reserved: Collection[str]
) -> Iterator[Layer]:
    """One layer per variable, so that an error can name it.

    pydantic-settings drops a variable whose first part is no setting: here it
    stays, under that part, to be refused like any unknown key.
    """
    source = EnvSettingsSource(model)
    for name, text in sorted(os.environ.items()):
        if not name.upper().startswith(prefix) or name.upper() in reserved:
            continue
        source.env_vars = {name.lower(): text}
        try:
            values = source()
        except SettingsError:
            raise ConfigError(f"{name}: a list or a table is written as JSON") from None
        yield Layer(f"by {name}", values or {name[len(prefix) :].lower().split("__")[0]: text})


def merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """The values of all layers, later ones over earlier ones, key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _over(merged, layer.values)
    return merged


def _over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _over(below, value)
        else:
            merged[key] = value
    return merged


def explain(
    error: ValidationError,
    model: type[BaseModel],
    layers: Sequence[Layer],
    secrets: Collection[str],
) -> str:
    """A line per key at fault: what is wrong, what would be right, and who set it."""
    lines = []
    for problem in error.errors():
        # pydantic marks what is wrong with a table's name, not with what is in it.
        loc = tuple(part for part in problem["loc"] if part != "[key]")
        key = ".".join(str(part) for part in loc)
        if problem["type"] == "extra_forbidden":
            line = f"{key}: unknown setting; {_remedy(model, loc)}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            line = f"{key}: {message[0].lower()}{message[1:]}"
            if not any(secret == key or secret.startswith(f"{key}.") for secret in secrets):
                line += f" (got {problem['input']!r})"
        places = [layer.place for layer in layers if _sets(layer.values, loc)]
        lines.append(f"{line} [set {places[-1]}]" if places else line)
    return "\n".join(lines)


def _sets(values: Any, loc: tuple[int | str, ...]) -> bool:
    for part in loc:
        if isinstance(part, int):
            return isinstance(values, Sequence) and part < len(values)
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


class Section(NamedTuple):
    field: FieldInfo
    table: type[BaseModel]


def sections(model: type[BaseModel], above: str = "") -> dict[str, Section]:
    """The settings that are tables of their own, those in tables too, by dotted name."""
    found = {}
    for name, field in model.model_fields.items():
        table = field.annotation
        if isinstance(table, type) and issubclass(table, BaseModel):
            found[f"{above}{name}"] = Section(field, table)
            found |= sections(table, f"{above}{name}.")
    return found


def named_tables(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a table that there may be many of, each under a name: ``dict[str, Model]``."""
    inner = get_args(field.annotation)[-1:]
    if inner and isinstance(inner[0], type) and issubclass(inner[0], BaseModel):
        return inner[0]
    return None


def _remedy(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """What was meant by an unknown key: the same name elsewhere, or a close one beside it."""
    *parents, name = (str(part) for part in loc)
    tables = {section: table for section, (_, table) in sections(model).items()}
    around = model
    if parents:
        named = named_tables(model.model_fields[parents[0]])
        around = tables.get(".".join(parents)) or named or model
    meant = [f"{section}.{name}" for section, table in tables.items() if name in table.model_fields]
    if not meant:
        near = get_close_matches(name, list(around.model_fields), 1)
        meant = [".".join((*parents, one)) for one in near]
    if meant:
        return f"did you mean {' or '.join(meant)}?"
    return f"known here: {', '.join(around.model_fields)}"
