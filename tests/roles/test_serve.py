from __future__ import annotations

import socket
from pathlib import Path

import pytest

from headwater.config import Serve
from headwater.errors import ConfigError
from headwater.keys import Keys
from headwater.roles.serve import check_address

KEY = "a-key-of-sixteen-or-more"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.8.8"])
def test_loopback_needs_no_key(host: str, tmp_path: Path) -> None:
    check_address(Serve(host=host, port=0), tmp_path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_addresses_need_a_key_and_the_message_says_how(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"HEADWATER_SERVE__API_KEY .*127\.0\.0\.1") as caught:
        check_address(Serve(host=host, port=0), tmp_path)
    assert host in str(caught.value)


def test_with_a_key_any_address_of_this_machine_will_do(tmp_path: Path) -> None:
    check_address(Serve(host="0.0.0.0", port=0, api_key=KEY), tmp_path)


def test_a_key_of_the_folder_will_do_until_it_is_revoked(tmp_path: Path) -> None:
    key, _ = Keys(tmp_path).create("ingest")
    check_address(Serve(host="0.0.0.0", port=0), tmp_path)
    Keys(tmp_path).revoke(key.id)
    with pytest.raises(ConfigError, match="headwater key create"):
        check_address(Serve(host="0.0.0.0", port=0), tmp_path)


def test_a_foreign_address_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serve.host 192\.0\.2\.1 is no address of this machine"):
        check_address(Serve(host="192.0.2.1", port=0, api_key=KEY), tmp_path)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"serve.port {port} .* in use .*--port"):
            check_address(Serve(port=port), tmp_path)
