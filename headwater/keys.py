"""API keys: who may ask a server for what.

A data folder's keys stand in ``keys.json``, each by its id, its role and the BLAKE2b
hash of its secret. The secret is 256 random bits, so that a fast hash is safe: there is
nothing to guess, and the file is of no use to whoever reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal, get_args

import msgspec
import structlog

from headwater.errors import ConfigError

Role = Literal["ingest", "serve", "admin"]
"""What a key is for: sending events, items and users; asking for lists; everything."""

ROLES: tuple[Role, ...] = get_args(Role)

FILE = "keys.json"
MAX_NAME_LENGTH = 100
LOOK_SECONDS = 0.25
"""How often a running server looks whether the file has changed, at most."""

_PREFIX = "hw"


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as it is kept; ``revoked_at`` is when it ceased to open anything."""

    id: str
    role: Role
    hash: str
    created_at: float
    name: str = ""
    revoked_at: float | None = None


class Keys:
    """The keys of a data folder, as the command line makes and revokes them.

    A revoked key stays in the file, so that revoking the last one doesn't open the
    server to everybody.
    """

    def __init__(self, data: Path) -> None:
        self.path = data / FILE

    def all(self) -> list[Key]:
        """Every key ever made, oldest first.

        Raises:
            ConfigError: the file is damaged, or can't be read.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Key])
        except FileNotFoundError:
            return []
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.path} is damaged: {error}; restore it, or delete it and make new keys"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self.path} can't be read: {error.strerror}") from None

    def create(self, role: Role, name: str = "") -> tuple[Key, str]:
        """A new key and its secret, which is kept nowhere.

        Raises:
            ConfigError: the name is too long, or the file can't be read or written.
        """
        if len(name) > MAX_NAME_LENGTH:
            raise ConfigError(f"--name is longer than {MAX_NAME_LENGTH} characters")
        with self._changing() as keys:
            taken = {key.id for key in keys}
            while (id := secrets.token_hex(4)) in taken:
                pass
            secret = f"{_PREFIX}_{id}_{secrets.token_urlsafe(32)}"
            key = Key(id, role, _hash(secret), time.time(), name)
            keys.append(key)
        return key, secret

    def revoke(self, id: str) -> Key:
        """Revokes a key; once more changes nothing.

        Raises:
            ConfigError: there is no key of that id, or the file can't be read or written.
        """
        with self._changing() as keys:
            for place, key in enumerate(keys):
                if key.id == id:
                    if key.revoked_at is None:
                        keys[place] = msgspec.structs.replace(key, revoked_at=time.time())
                    return keys[place]
        raise ConfigError(f"there is no key {id}; `headwater key list` shows every id")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The list to change; what it is at the end is written, all of it or nothing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The lock has a file of its own: keys.json is another file after every change.
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.path.parent} can't be written: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.all()
            before = list(keys)
            yield keys
            if keys != before:
                self._write(keys)
        finally:
            os.close(lock)

    def _write(self, keys: Sequence[Key]) -> None:
        part = self.path.with_suffix(".part")
        try:
            part.unlink(missing_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(keys)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path} can't be written: {error.strerror}") from None


class KeyRing:
    """The keys as a running server asks for them: looked up by secret, and never out of date.

    Args:
        data: the folder; ``None`` where there is none, and only ``api_key`` counts.
        api_key: the configured key, which is an admin's.

    Raises:
        ConfigError: the file is damaged.
    """

    def __init__(self, data: Path | None, api_key: str | None = None) -> None:
        self._keys = Keys(data) if data is not None else None
        self._configured = None if api_key is None else _hash(api_key)
        self._by_id: dict[str, Key] = {}
        self._required = api_key is not None
        self._looked_at = time.monotonic()
        self._seen = self._stamp()
        self._load()

    @property
    def required(self) -> bool:
        """Whether a request needs a key: once one exists, until the server starts anew."""
        self._look()
        return self._required

    @property
    def usable(self) -> bool:
        """Whether there is a key that opens something."""
        self._look()
        return self._configured is not None or bool(self._by_id)

    def role(self, secret: str) -> Role | None:
        """The role of the key with this secret; ``None`` where there is none, or it is revoked."""
        self._look()
        given = _hash(secret)
        if self._configured is not None and hmac.compare_digest(given, self._configured):
            return "admin"
        _, _, rest = secret.partition("_")
        key = self._by_id.get(rest.partition("_")[0])
        if key is not None and hmac.compare_digest(given, key.hash):
            return key.role
        return None

    def name(self, secret: str) -> str:
        """What to call the key with this secret, one that has a role, in an audit trail."""
        _, _, rest = secret.partition("_")
        key = self._by_id.get(rest.partition("_")[0])
        if key is None or not hmac.compare_digest(_hash(secret), key.hash):
            return "the configured key"
        return f"key {key.id} ({key.name})" if key.name else f"key {key.id}"

    def _look(self) -> None:
        """Loads the file again where it has changed; what is damaged changes nothing."""
        now = time.monotonic()
        if self._keys is None or now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        if (stamp := self._stamp()) == self._seen:
            return
        self._seen = stamp
        try:
            self._load()
        except ConfigError as error:
            structlog.get_logger().error("the keys can't be read", reason=str(error))

    def _load(self) -> None:
        keys = self._keys.all() if self._keys is not None else []
        self._required = self._required or bool(keys)
        self._by_id = {key.id: key for key in keys if key.revoked_at is None}

    def _stamp(self) -> tuple[int, int, int] | None:
        """What is another after every change of the file."""
        if self._keys is None:
            return None
        try:
            found = self._keys.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _hash(secret: str) -> str:
    return blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
