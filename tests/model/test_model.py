from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.deploy import state_digest
from headwater.model import EXPERTS, Model
from headwater.recommend import Features
from tests.model.arrays import batches, contexts, copied, examples, small, stream

ITEMS = 12


def model(config=None):
    config = config or small()
    consuming = np.zeros(1 + len(config.event_types), np.bool_)
    return Model(config, consuming, Features(config).mixture(config))


def taught():
    """A model that counted a stream and took a few steps."""
    found = model()
    made, items = batches(small(), stream([(n % 3, n % ITEMS, 1e9 + n) for n in range(100)]))
    found.grow(len(items))
    for batch in made:
        found.count(batch)
    learn(found)
    return found


def learn(found, targets=(4, 6)):
    lesson = examples([[1, 2, 3], [5]], targets)
    found.sequence.step(lesson, np.arange(ITEMS, dtype=np.int32), None, 1.0).take()


def sequence_scores(found):
    users = found.sequence.encode(contexts([[1, 2], [7]]))
    return found.sequence.scores(users, np.tile(np.arange(ITEMS, dtype=np.int32), (2, 1)))


def test_a_follower_that_puts_every_change_gives_the_same_scores():
    trainer, follower = taught(), model()
    follower.grow(3)
    follower.put(*trainer.changes())
    np.testing.assert_array_equal(sequence_scores(follower), sequence_scores(trainer))
    trainer.forget(np.array([3], np.int32))
    learn(trainer, (4, 4))
    follower.put(*trainer.changes())
    np.testing.assert_array_equal(sequence_scores(follower), sequence_scores(trainer))


def test_a_change_that_did_not_travel_shows():
    trainer, follower = taught(), model()
    follower.put(*trainer.changes())
    learn(trainer)
    tables, tombstones, dense = trainer.changes()
    del dense["sequence.recency"]
    follower.put(tables, tombstones, dense)
    assert (sequence_scores(follower) != sequence_scores(trainer)).any()


def test_changes_are_the_rows_that_changed_and_all_dense_weights():
    found = taught()
    found.changes()
    lesson = examples([[1, 2]], [4])
    found.sequence.step(lesson, np.array([8], np.int32), None, 1.0).take()
    found.forget(np.array([9], np.int32))
    tables, tombstones, dense = found.changes()
    assert tables["sequence.items"].rows.tolist() == [1, 2, 4, 8]
    assert tombstones["sequence.items"].tolist() == [9]
    assert {name.split(".")[0] for name in dense} == {"sequence", "mixture"}
    assert all(value.dtype == np.float32 for value in dense.values())


def test_a_forgotten_item_is_forgotten_by_every_expert():
    found, fresh = taught(), model()
    fresh.grow(ITEMS)
    found.forget(np.array([3, 5], np.int32))
    for name in ("events", "first_times"):
        assert getattr(found.popularity, name)[[3, 5]].tolist() == [0, 0]
    every = np.arange(ITEMS, dtype=np.int32)[None]
    # What is in a history is proposed by habits however little is known of it.
    for expert in found.counting[:-1]:
        asked = contexts([[3], [5]])
        assert not expert.weigh(asked).scores(np.repeat(every, 2, axis=0)).any()
    np.testing.assert_array_equal(
        found.sequence.tower.items.values[[3, 5]], fresh.sequence.tower.items.values[[3, 5]]
    )


def test_a_loaded_state_is_the_saved_one():
    one, other = taught(), model()
    other.load(copied(one.state()))
    assert state_digest(other.state()) == state_digest(one.state())
    learn(one)
    learn(other)
    assert state_digest(other.state()) == state_digest(one.state())


def test_every_expert_has_its_part_in_the_state():
    parts = {name.split(".")[0] for name in taught().state()}
    assert parts == {*EXPERTS, "occasions", "mixture"}


def test_counting_leaves_what_is_learned_by_gradient_alone():
    found = taught()
    before = {k: v.copy() for k, v in found.state().items() if k[:4] in ("sequ", "mixt")}
    found.count(batches(small(), stream([(0, 1, 2e9)]))[0][0])
    after = found.state()
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    assert found.popularity.last_times.max() == 2e9


def test_a_model_computes_on_one_thread():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        model()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("items", [1, 5, 3000])
def test_growing_makes_room_in_every_expert(items):
    found = model()
    found.grow(items)
    found.grow(1)
    assert len(found.popularity.scores()) == len(found.sequence.tower.items) == items
    for expert in found.counting[:-1]:
        rows, _ = expert.weigh(contexts([[items - 1]])).best(np.zeros(items, "?"), 2)
        assert rows.tolist() == [[-1, -1]]
