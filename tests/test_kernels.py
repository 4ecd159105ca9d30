"""Who waits for the compiler is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater import kernels
from headwater.cli._options import announce_compiling, plain_console


def test_compiled_is_what_has_been_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.py"))
    assert not kernels.are_compiled()
    kept = tmp_path / "model" / "__pycache__"
    kept.mkdir(parents=True)
    (kept / "content._best-1.py311.nbi").touch()
    assert kernels.are_compiled()


@pytest.mark.parametrize("compiled", [False, True])
def test_the_first_run_says_what_it_waits_for(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "are_compiled", lambda: compiled)
    console = plain_console(width=200)
    with console.capture() as printed:
        announce_compiling(console)
    assert (kernels.FIRST in printed.get()) is not compiled
