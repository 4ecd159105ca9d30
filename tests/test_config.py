"""Settings: what wins over what, which errors help, and that the pages say what the code does."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headwater import config as settings
from headwater.config import (
    DEFAULT_EVENT_TYPES,
    RESERVED_VARIABLES,
    Config,
    EventType,
    Serve,
    annotated_toml,
    configuration_markdown,
    effective,
    load,
)
from headwater.errors import ConfigError

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
KEY = "a-key-of-thirty-two-characters--"

Load = Callable[..., Config]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """``load`` of a file with this text, under these variables and flags."""

    def load_from(
        text: str | bytes = "", flags: dict[str, Any] | None = None, **env: str
    ) -> Config:
        file = tmp_path / "headwater.toml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return load(file, flags)

    return load_from


def test_file_under_environment_under_flags(loaded: Load):
    text = "seed = 1\n[sequence]\nlayers = 1\ndim = 32\nheads = 1\n"
    flags = {"sequence": {"layers": 3}}
    config = loaded(text, flags, HEADWATER_SEQUENCE__LAYERS="2", HEADWATER_SEQUENCE__DIM="16")
    assert config.seed == 1
    assert (config.sequence.layers, config.sequence.dim, config.sequence.heads) == (3, 16, 1)
    assert config.sequence.replay == Config().sequence.replay
    nested = "[preprocess.cleaning]\nburst_events = 7\nburst_seconds = 2.0"
    config = loaded(nested, HEADWATER_PREPROCESS__CLEANING__BURST_EVENTS="8")
    cleaning = config.preprocess.cleaning
    assert (cleaning.burst_events, cleaning.burst_seconds) == (8, 2.0)


def test_the_file_of_the_working_folder_is_read_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert load() == Config()
    (tmp_path / "headwater.toml").write_text("seed = 7")
    assert load().seed == 7


def test_a_config_made_in_code_reads_neither_environment_nor_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headwater.toml").write_text("seed = 7")
    monkeypatch.setenv("HEADWATER_SEED", "8")
    assert Config().seed == 0


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().sequence.layers = 3
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3


def test_lists_and_tables_in_the_environment_are_json(loaded: Load):
    config = loaded(
        HEADWATER_POPULARITY__HALF_LIVES_HOURS="[1, 2.5]", HEADWATER_TRAIN='{"batch_events": 7}'
    )
    assert config.popularity.half_lives_hours == (1.0, 2.5)
    assert config.train.batch_events == 7


# --- event types -------------------------------------------------------------------------------


def test_event_types_from_the_file(loaded: Load):
    config = loaded("[events.purchase]\nweight = 9.0\npolarity = 1\n[events.share]\nweight = 2\n")
    assert config.event_types["purchase"] == EventType(weight=9.0)
    assert config.event_types["share"] == EventType(weight=2.0)
    assert config.event_types["view"] == DEFAULT_EVENT_TYPES["view"]
    assert list(config.event_types)[-1] == "share"


def test_event_types_from_the_environment(loaded: Load):
    config = loaded(
        "[events.purchase]\nweight = 9.0\nrepeats = false\n",
        HEADWATER_EVENTS__PURCHASE__WEIGHT="6",
        HEADWATER_EVENTS__PURCHASE__POLARITY="-1",
        HEADWATER_EVENTS__SHARE__WEIGHT="2",
    )
    purchase = EventType(weight=6.0, polarity=-1, repeats=False)
    assert config.event_types["purchase"] == purchase
    assert config.event_types["share"].weight == 2.0


@pytest.mark.parametrize("name", sorted(DEFAULT_EVENT_TYPES))
def test_a_built_in_type_keeps_what_isnt_overridden(loaded: Load, name: str):
    built_in = DEFAULT_EVENT_TYPES[name]
    changed = loaded(f"[events.{name}]\nweight = 7.0\n").event_types[name]
    assert changed == built_in.model_copy(update={"weight": 7.0})
    repeats = not built_in.repeats
    changed = loaded(f"[events.{name}]\nrepeats = {str(repeats).lower()}\n").event_types[name]
    assert changed == built_in.model_copy(update={"repeats": repeats})


def test_settings_go_round(loaded: Load):
    config = loaded("[events.rating]\nweight = 3.0\n")
    assert Config(**config.model_dump()) == config


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[sequence]\nlayres = 3",
            "sequence.layres: unknown setting; did you mean sequence.layers?",
        ),
        ("sede = 3", "sede: unknown setting; did you mean seed?"),
        ("[sequnce]\nlayers = 3", "sequnce: unknown setting; did you mean sequence?"),
        ("layers = 3", "layers: unknown setting; did you mean sequence.layers?"),
        ("[train]\nport = 3", "train.port: unknown setting; did you mean serve.port?"),
        (
            "[preprocess.cleaning]\nburst_event = 3",
            "preprocess.cleaning.burst_event: unknown setting; "
            "did you mean preprocess.cleaning.burst_events?",
        ),
        ("[preprocess]\nburst_events = 3", "did you mean preprocess.cleaning.burst_events?"),
        ("[train]\nzzz = 3", "train.zzz: unknown setting; known here: batch_events, "),
        ("[events.view]\nweigth = 3", "did you mean events.view.weight?"),
        ("[events.share]\nlayers = 3", "events.share.layers: unknown setting"),
        ("seed = 'x'", "seed: input should be a valid integer"),
        ("seed = -1", "seed: input should be greater than or equal to 0 (got -1)"),
        (f"seed = {2**64}", "seed: input should be less than or equal to 4294967295 (got"),
        ("seed = true", "seed: input should be a number, not true or false (got True)"),
        ("[serve]\nport = true", "serve.port: input should be a number, not true or false"),
        ("[log]\nkeep_days = false", "log.keep_days: input should be a number, not true or false"),
        ("[sequence]\nlearning_rate = nan", "sequence.learning_rate: input should be a finite"),
        ("[sequence]\nlearning_rate = inf", "sequence.learning_rate: input should be a finite"),
        (
            "[popularity]\nhalf_lives_hours = [1.0, nan]",
            "half_lives_hours.1: input should be a fin",
        ),
        ("[popularity]\nhalf_lives_hours = []", "popularity.half_lives_hours: "),
        ("[events.view]\nweight = inf", "events.view.weight: input should be a finite number"),
        ("[events.view]\npolarity = 2", "events.view.polarity: input should be -1, 0 or 1 (got 2)"),
        ("[sequence]\nheads = 3", "dim (64) must be a multiple of heads (3)"),
        ("sequence = 3", "sequence: input should be a valid dictionary"),
        ("events = 3", "events: input should be a valid dictionary"),
        ("[events.'']\nweight = 1.0", "events."),
    ],
)
def test_errors_in_the_file_name_key_and_remedy(loaded: Load, text: str, line: str):
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    assert line in str(caught.value)
    assert re.search(r"\[set in .*headwater\.toml\]", str(caught.value))


def test_every_key_at_fault_has_a_line(loaded: Load):
    with pytest.raises(ConfigError) as caught:
        loaded("seed = -1\n[sequence]\nlayres = 3\n", {"serve": {"port": 70_000}})
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["seed", "sequence.layres", "serve.port"]
    assert lines[2].endswith("[set by a flag]")


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("HEADWATER_SEQUENCE__LAYRES", "3", "did you mean sequence.layers?"),
        ("HEADWATER_PREPROCESS__CLEANING__BURST_EVENT", "3", "preprocess.cleaning.burst_events?"),
        ("HEADWATER_SEQUENCE_LAYERS", "3", "sequence_layers: unknown setting"),
        ("HEADWATER_SEDE", "3", "sede: unknown setting; did you mean seed?"),
        ("headwater_sede", "3", "sede: unknown setting; did you mean seed?"),
        ("HEADWATER_NONSENSE__A__B", "3", "nonsense: unknown setting"),
        ("HEADWATER_SEED", "x", "seed: input should be a valid integer"),
        ("HEADWATER_SEQUENCE__REPLAY", "nan", "sequence.replay: input should be a finite number"),
        ("HEADWATER_POPULARITY__HALF_LIVES_HOURS", "1,2", "a list or a table is written as JSON"),
        ("HEADWATER_TRAIN", "fast", "a list or a table is written as JSON"),
        (
            "HEADWATER_SEQUENCE__LAYERS__DEEP",
            "3",
            "sequence.layers: input should be a valid integer",
        ),
    ],
)
def test_errors_in_the_environment_name_the_variable(
    loaded: Load, variable: str, value: str, line: str
):
    with pytest.raises(ConfigError) as caught:
        loaded(**{variable: value})
    assert line in str(caught.value)
    assert variable in str(caught.value)


def test_the_variable_that_wins_is_the_one_to_blame(loaded: Load):
    with pytest.raises(ConfigError, match=r"\[set by HEADWATER_SEED\]"):
        loaded("seed = -1", HEADWATER_SEED="-2")


def test_variables_that_arent_settings_are_let_through(loaded: Load):
    assert loaded(**dict.fromkeys(RESERVED_VARIABLES, "x")) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [("seed = 1\nseed 2\n", r"is not TOML: .*line 2"), (b"seed = '\xff'", "is not UTF-8")],
)
def test_a_file_that_is_no_toml_says_where(loaded: Load, text: str | bytes, message: str):
    with pytest.raises(ConfigError, match=message):
        loaded(text)


def test_a_file_that_isnt_there_is_an_error_when_it_was_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no file"):
        load(tmp_path / "other.toml")


# --- secrets -----------------------------------------------------------------------------------


def test_secrets_are_shown_nowhere(loaded: Load):
    hook = f"https://hooks.example.org/{KEY}"
    config = loaded(f"[serve]\napi_key = '{KEY}'\n[deploy]\nwebhook_url = '{hook}'\n")
    assert (config.serve.api_key, config.deploy.webhook_url) == (KEY, hook)
    shown = effective(config)
    assert shown["serve"]["api_key"] == shown["deploy"]["webhook_url"] == "********"
    assert KEY not in repr(config)


@pytest.mark.parametrize(
    "text",
    [
        "[serve]\napi_key = 'too-short'",
        "serve = 'too-short'",
        "[deploy]\nwebhook_url = 'hooks.example.org/too-short'",
    ],
)
def test_secrets_are_in_no_message(loaded: Load, text: str):
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    assert "too-short" not in str(caught.value)


def test_every_secret_is_a_setting():
    tables = dict(_tables())
    for secret in settings.SECRETS:
        section, key = secret.split(".")
        assert key in tables[section].model_fields


# --- pages -------------------------------------------------------------------------------------


def _tables() -> list[tuple[str, type[BaseModel]]]:
    nested = [
        (name, field.annotation)
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ]
    return [("", Config), *nested, ("events.<name>", EventType)]


FIELDS: list[tuple[str, FieldInfo]] = [
    (f"{section}.{key}".strip("."), field)
    for section, table in _tables()
    for key, field in table.model_fields.items()
]


@pytest.mark.parametrize(("key", "field"), FIELDS, ids=[key for key, _ in FIELDS])
def test_every_setting_is_documented(key: str, field: FieldInfo):
    assert field.description, f"{key} needs a docstring under it"
    if field.default is None:
        assert field.examples, f"{key} has no default, and so needs an example"


def test_effective_shows_every_setting_and_every_event_type():
    shown = effective(Config(serve=Serve(api_key=KEY)))
    assert {name for name, _ in _tables() if name in shown} == {
        name for name, _ in _tables() if name and "." not in name
    }
    for name, table in _tables():
        if name in shown:
            assert set(shown[name]) == set(table.model_fields)
    assert set(shown["events"]) == set(DEFAULT_EVENT_TYPES)
    assert shown["popularity"]["half_lives_hours"] == [1.0, 6.0, 24.0, 96.0, 384.0, 2880.0]


def test_the_annotated_file_changes_nothing_as_it_is(loaded: Load):
    assert loaded(annotated_toml()) == Config()


def test_the_annotated_file_holds_every_setting_at_its_default(loaded: Load):
    lines = [
        line.removeprefix("# ")
        for line in annotated_toml().splitlines()
        if not line.startswith("##")
    ]
    written = tomllib.loads("\n".join(lines))
    defaults = effective(Config())
    for section, table in _tables():
        for key, field in table.model_fields.items():
            if section in defaults and field.default is not None:
                assert written[section][key] == defaults[section][key], f"{section}.{key}"
    assert written["seed"] == defaults["seed"]
    assert written["events"] == defaults["events"]
    assert loaded("\n".join(lines)).event_types == DEFAULT_EVENT_TYPES


def test_the_page_of_the_docs_is_true():
    assert PAGE.read_text(encoding="utf-8") == configuration_markdown(), (
        "headwater/config.py has changed; write the page anew with\n  python -c 'from headwater "
        'import config as c; print(c.configuration_markdown(), end="")\' > docs/configuration.md'
    )


def test_the_page_has_a_row_for_every_setting():
    page = configuration_markdown()
    for key, field in FIELDS:
        if field.annotation in (int, float, bool, str):
            assert f"| `{key.rpartition('.')[2]}` | `" in page or field.default is None
    for name in RESERVED_VARIABLES:
        assert f"| `{name}` |" in page
