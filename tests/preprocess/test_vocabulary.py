from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.packing import pack_strings
from headwater.preprocess import Vocabulary
from headwater.types import NO_ROW


@given(st.lists(st.text(max_size=5)), st.text(max_size=5))
def test_rows_are_given_in_order_of_first_sight_and_for_good(ids, asked):
    words = Vocabulary()
    rows = [words.row(id) for id in ids]
    unique = list(dict.fromkeys(ids))
    assert rows == [unique.index(id) for id in ids]
    assert (list(words), len(words)) == (unique, len(unique))
    assert [words.id(row) for row in rows] == ids
    assert words.find(asked) == (unique.index(asked) if asked in unique else NO_ROW)
    assert words.known([asked, *ids]) == [unique.index(id) for id in [asked, *ids] if id in unique]
    assert len(words) == len(unique), "asking adds nothing"
    again = Vocabulary()
    again.load(words.state())
    assert list(again) == unique
    assert again.row("a new one of more letters") == len(unique)


def test_a_state_that_holds_an_id_twice_is_refused():
    text, offsets = pack_strings(["a", "b", "a"])
    with pytest.raises(ValueError, match="twice"):
        Vocabulary().load({"text": text, "offsets": np.array(offsets), "free": np.zeros(0, "i4")})


@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from("abcdefgh"), max_size=5))))
def test_a_released_row_is_the_next_new_ids_the_lowest_first(steps):
    words = Vocabulary()
    rows: dict[str, int] = {}
    free: set[int] = set()
    for releases, ids in steps:
        if releases:
            gone = sorted({rows[id] for id in ids if id in rows})
            words.release(np.array(gone + sorted(free), np.int32))
            free |= set(gone)
            rows = {id: row for id, row in rows.items() if row not in free}
        else:
            for id in ids:
                if id not in rows:
                    rows[id] = min(free) if free else len(rows)
                    free.discard(rows[id])
                assert words.row(id) == rows[id]
        assert {id: words.find(id) for id in "abcdefgh" if words.find(id) != NO_ROW} == rows
        assert (len(words), words.n_known) == (len(rows) + len(free), len(rows))
        assert set(np.flatnonzero(~words.in_use()).tolist()) == free
        again = Vocabulary()
        again.load(words.state())
        words = again
