"""Vectors that are kept: the same bits, exactly while they would come out the same."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.loop import Fold
from headwater.recommend import UserVectors
from headwater.types import Contexts, Request
from tests.recommend.learned import NOW, learned, requests


@pytest.fixture(scope="module")
def fold() -> Fold:
    return learned()


def contexts(fold: Fold, *asked: Request, now: float = NOW) -> Contexts:
    return fold.preprocess.contexts(asked, now)


def test_what_is_kept_is_what_would_be_computed(fold: Fold) -> None:
    kept, sequence = UserVectors(100), fold.model.sequence
    for asked in ([one] for one in requests()):
        first = kept.of(sequence, contexts(fold, *asked))
        again = kept.of(sequence, contexts(fold, *asked))
        assert again is first
        assert again.tobytes() == sequence.encode(contexts(fold, *asked)).tobytes()
    together = kept.of(sequence, contexts(fold, *requests()))
    assert together.tobytes() == sequence.encode(contexts(fold, *requests())).tobytes()
    assert kept.of(sequence, contexts(fold, *requests())) is together
    with pytest.raises(ValueError, match="read-only"):
        together[0] = 0


def test_everything_that_the_encoding_depends_on_tells_vectors_apart(fold: Fold) -> None:
    kept, sequence = UserVectors(100), fold.model.sequence
    known = contexts(fold, Request(1, "u3"))
    kept.of(sequence, known)
    for name in ("history_items", "history_types"):
        other = contexts(fold, Request(1, "u3"))
        getattr(other, name)[0, -1] += 1
        assert kept.of(sequence, other).tobytes() == sequence.encode(other).tobytes()
    other = contexts(fold, Request(1, "u3"))
    other.history_times[0, :-1] -= 1e6
    assert kept.of(sequence, other).tobytes() == sequence.encode(other).tobytes()
    assert (kept.hits, kept.misses) == (0, 4)


def test_a_pause_counts_by_its_bucket(fold: Fold) -> None:
    kept, sequence = UserVectors(100), fold.model.sequence
    last = contexts(fold, Request(1, "u3")).history_times[0, -1]
    for pause in np.geomspace(1, 1e8, 200):
        asked = contexts(fold, Request(1, "u3"), now=last + pause)
        assert kept.of(sequence, asked).tobytes() == sequence.encode(asked).tobytes()
    # Pauses are told apart in powers of 3: 200 of them fall into less than 16 buckets.
    assert 10 < kept.misses < 17
    assert kept.hits == 200 - kept.misses


def test_those_who_asked_longest_ago_go_first_and_no_more_are_kept(fold: Fold) -> None:
    kept, sequence = UserVectors(3), fold.model.sequence

    def ask(*users: str) -> bool:
        before = kept.hits
        kept.of(sequence, contexts(fold, *(Request(1, user) for user in users)))
        assert len(kept) <= 3
        return kept.hits > before

    assert not any(ask(user) for user in ("u1", "u2", "u3"))
    assert ask("u1")
    assert not ask("u4")  # takes the place of u2
    assert ask("u1")
    assert ask("u3")
    assert not ask("u2")
    assert not ask("u5", "u6")
    assert ask("u5", "u6")
    assert not ask("u1", "u2", "u3", "u4")
    assert ask("u5", "u6"), "what is too much to keep pushes nobody out"
    kept.clear()
    assert len(kept) == 0
    assert not ask("u5", "u6")


def test_none_are_kept_where_none_may_be(fold: Fold) -> None:
    kept = UserVectors(0)
    for _ in range(2):
        kept.of(fold.model.sequence, contexts(fold, Request(1, "u3")))
    assert (kept.hits, kept.misses, len(kept)) == (0, 2, 0)
