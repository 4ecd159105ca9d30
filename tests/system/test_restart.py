"""Ctrl-C, and later on from where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from safetensors.numpy import save_file

from headwater.deploy import Snapshots
from headwater.deploy._sealing import seal
from tests.system.running import PATIENCE, System, ratings

EVENTS = 1_200
MONTH = 30 * 86_400.0


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("restart"))
    try:
        yield system
    finally:
        system.end()


def answers(system: System, users: list[str]) -> dict[str, list[tuple[str, float]]]:
    return {
        user: [(item["item_id"], item["score"]) for item in system.recommend(user)["items"]]
        for user in users
    }


def test_ctrl_c_snapshots_and_the_next_start_recommends_the_same(system: System) -> None:
    system.start().wait_until_ready()
    events = ratings(EVENTS)
    system.post(events)
    # Time since things happened is a feature. A search a month later moves the stream's clock and
    # nothing else, so that the seconds of a restart don't show in the scores.
    last = {**events[-1], "event_id": "search", "type": "search", "value": None}
    last |= {"item_id": None, "timestamp": events[-1]["timestamp"] + MONTH}
    system.post([last])
    assert system.wait_until_learned() == EVENTS + 1
    users = [*sorted({event["user_id"] for event in events[::40]}), "a stranger"]
    before = answers(system, users)
    status = system.get("/v1/status")

    assert system.interrupt() == 0
    assert [record["child"] for record in system.log("role stopped")] == ["api", "trainer"]
    assert all(record["code"] == 0 for record in system.log("role stopped"))
    assert not (system.data / "api.json").exists()
    snapshots = Snapshots(system.data / "snapshots", keep=1)
    manifest = snapshots.manifest(snapshots.paths()[-1])
    assert manifest.offset == EVENTS + 1
    assert system.updates() == [], "the snapshot stands for them"

    system.start().wait_until_ready()
    again = system.get("/v1/status")
    names = ("end", "offset", "trained_through", "sequence", "epoch", "version")
    assert {name: again[name] for name in names} == {name: status[name] for name in names}
    after = answers(system, users)
    assert len(users) > 20
    for user in users:
        assert len(before[user]) == 20
        assert [item for item, _ in after[user]] == [item for item, _ in before[user]], user
        assert [score for _, score in after[user]] == pytest.approx(
            [score for _, score in before[user]], abs=1e-5
        )

    # And it goes on learning, in the same epoch.
    more: list[dict[str, Any]] = [
        {**event, "timestamp": last["timestamp"] + 60.0} for event in ratings(100, EVENTS)
    ]
    system.post(more)
    assert system.wait_until_learned() == EVENTS + 101
    status = system.get("/v1/status")
    assert status["epoch"] == again["epoch"] == 1
    assert status["sequence"] > again["sequence"]
    assert answers(system, users) != before
    assert system.interrupt() == 0
    assert not system.log("new epoch"), json.dumps(system.log("new epoch"))


def test_a_snapshot_that_doesnt_fit_ends_everything_with_the_reason(system: System) -> None:
    system.start().wait_until_ready()
    system.post(ratings(200))
    system.wait_until_learned()
    assert system.interrupt() == 0
    fitting = system.settings.read_text()
    kept = Snapshots(system.data / "snapshots", keep=1).paths()

    system.settings.write_text(fitting.replace("dim = 8", "dim = 16"))
    assert ended_with(system) == 2
    for refusal in system.log("can't start"):
        assert f"{kept[-1]} has another shape: sequence.dim is 8 there and 16" in refusal["reason"]

    system.settings.write_text(fitting)
    newer = seal(json.dumps({"format": 99, "unheard_of": 1}).encode())
    name = f"{kept[-1].name.partition('-s')[0]}-s{10**11:012d}.safetensors"
    save_file({}, kept[-1].with_name(name), metadata=newer)
    assert ended_with(system) == 2
    assert "has format 99" in system.log("can't start")[-1]["reason"]
    assert "update Headwater" in system.log("can't start")[-1]["reason"]
    assert not system.log("role ended, restarting")
    assert not system.log("the model thread died")

    kept[-1].with_name(name).unlink()
    system.start().wait_until_ready()
    assert system.interrupt() == 0


def ended_with(system: System) -> int:
    """The exit code of a start that must fail."""
    process = system.start().process
    assert process is not None
    return process.wait(PATIENCE)
