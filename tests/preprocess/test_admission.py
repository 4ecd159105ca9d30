"""The frequency filter: what was seen too seldom has no row."""

from __future__ import annotations

import numpy as np

from headwater.deploy import state_digest
from headwater.preprocess import Vocabulary
from headwater.preprocess._admission import Admission
from headwater.types import NO_ROW


def test_an_id_gets_its_row_at_the_wanted_sighting():
    for after in (1, 2, 5):
        admission = Admission(Vocabulary(), after)
        rows = [admission.row("a") for _ in range(after + 2)]
        assert rows == [NO_ROW] * (after - 1) + [0, 0, 0]


def test_an_id_that_has_a_row_needs_no_sightings():
    vocabulary = Vocabulary()
    vocabulary.row("put")
    assert Admission(vocabulary, 3).row("put") == 0


def test_few_of_many_ids_that_are_seen_once_are_admitted():
    vocabulary = Vocabulary()
    admission = Admission(vocabulary, 2)
    for n in range(60_000):
        admission.row(f"once {n}")
    assert vocabulary.n_known < 0.024 * 60_000
    assert sum(value.nbytes for value in admission.state().values()) < 1_100_000


def test_old_sightings_count_for_less():
    vocabulary = Vocabulary()
    admission = Admission(vocabulary, 3)
    for _ in range(2):
        admission.row("seldom")
    for n in range(1 << 16):
        admission.row(f"other {n}")
    assert admission.row("seldom") == NO_ROW, "one of its two sightings is left"


def test_a_loaded_state_goes_on_and_one_without_counts_starts_empty():
    one, other = Admission(Vocabulary(), 3), Admission(Vocabulary(), 3)
    for id in ("a", "a", "b"):
        one.row(id)
    other.load({name: np.copy(value) for name, value in one.state().items()})
    assert state_digest(other.state()) == state_digest(one.state())
    assert (other.row("a"), other.row("b")) == (0, NO_ROW)
    other = Admission(Vocabulary(), 3)
    other.load(Admission(Vocabulary(), 1).state())
    assert [other.row("a") for _ in range(3)] == [NO_ROW, NO_ROW, 0]
