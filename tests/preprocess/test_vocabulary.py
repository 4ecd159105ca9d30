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
        Vocabulary().load({"text": text, "offsets": np.array(offsets)})
