"""Keys: kept as hashes, noticed by a running server, and never opening again once revoked."""

from __future__ import annotations

import json
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headwater import cli, keys
from headwater.errors import ConfigError
from headwater.keys import ROLES, KeyRing, Keys


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_SECONDS", 0.0)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["headwater", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    code = caught.value.code
    assert code is None or isinstance(code, int)
    return code or 0


@pytest.mark.parametrize("role", ROLES)
def test_a_key_has_its_role(role: keys.Role, tmp_path: Path) -> None:
    key, secret = Keys(tmp_path).create(role, "shop")
    ring = KeyRing(tmp_path)
    assert ring.required
    assert ring.usable
    assert ring.role(secret) == role
    (kept,) = Keys(tmp_path).all()
    assert kept == key
    assert (kept.role, kept.name, kept.revoked_at) == (role, "shop", None)


def test_nothing_else_opens(tmp_path: Path) -> None:
    key, secret = Keys(tmp_path).create("admin")
    other, _ = Keys(tmp_path).create("admin")
    ring = KeyRing(tmp_path)
    swapped = secret.replace(key.id, other.id)
    for wrong in ("", "_", "__", "hw", f"hw_{key.id}_", key.hash, secret[:-1], f"{secret}x"):
        assert ring.role(wrong) is None
    assert ring.role(swapped) is None
    assert ring.role(secret.upper()) is None
    assert ring.role("\udcff") is None


def test_secrets_are_not_kept_and_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    _, secret = Keys(tmp_path).create("admin")
    text = (tmp_path / keys.FILE).read_text()
    assert secret not in text
    assert secret.rpartition("_")[2] not in text
    assert stat.S_IMODE((tmp_path / keys.FILE).stat().st_mode) == 0o600


def test_a_ring_notices_new_and_revoked_keys(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    assert not ring.required
    key, secret = Keys(tmp_path).create("serve")
    assert ring.required
    assert ring.role(secret) == "serve"
    Keys(tmp_path).revoke(key.id)
    assert ring.role(secret) is None
    assert ring.required
    assert not ring.usable


def test_a_ring_stays_closed_when_the_file_is_lost_or_damaged(tmp_path: Path) -> None:
    _, secret = Keys(tmp_path).create("serve")
    ring = KeyRing(tmp_path)
    (tmp_path / keys.FILE).write_text("[{")
    assert ring.required
    assert ring.role(secret) == "serve"
    (tmp_path / keys.FILE).unlink()
    assert ring.required
    assert ring.role(secret) is None


def test_a_damaged_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / keys.FILE).write_text('[{"id": "x"}]')
    with pytest.raises(ConfigError, match=r"keys\.json is damaged"):
        KeyRing(tmp_path)


def test_the_configured_key_is_an_admins_beside_the_others(tmp_path: Path) -> None:
    _, secret = Keys(tmp_path).create("ingest")
    ring = KeyRing(tmp_path, "the-configured-key")
    assert ring.role("the-configured-key") == "admin"
    assert ring.role(secret) == "ingest"
    assert KeyRing(None, "the-configured-key").required
    assert not KeyRing(None).required


def test_keys_made_at_once_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: Keys(tmp_path).create("ingest"), range(16)))
    ring = KeyRing(tmp_path)
    assert all(ring.role(secret) == "ingest" for _, secret in made)
    assert len(Keys(tmp_path).all()) == 16


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(tmp_path))
    assert run(monkeypatch, "key", "create", "--role", "serve", "--name", "web", *data) == 0
    secret = capsys.readouterr().out.strip()
    assert KeyRing(tmp_path).role(secret) == "serve"
    assert run(monkeypatch, "key", "list", "--json", *data) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["role"], listed["name"], listed["revoked_at"]) == ("serve", "web", None)
    assert set(listed) == {"id", "role", "name", "created_at", "revoked_at"}
    assert run(monkeypatch, "key", "revoke", listed["id"], *data) == 0
    assert KeyRing(tmp_path).role(secret) is None
    capsys.readouterr()
    assert run(monkeypatch, "key", "list", *data) == 0
    shown = capsys.readouterr().out
    assert listed["id"] in shown
    assert secret not in shown
    assert run(monkeypatch, "key", "revoke", "nobody", *data) == 2
    assert "key list" in capsys.readouterr().err
    assert run(monkeypatch, "key", "create", "--role", "boss", *data) == 2
