from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headwater.packing import pack_strings, unpack_strings


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=()))))
def test_any_strings_come_back(strings):
    text, offsets = pack_strings(strings)
    assert text.dtype == np.uint8
    assert offsets.dtype == np.int64
    assert len(offsets) == len(strings) + 1
    assert unpack_strings(text, offsets) == strings


def test_lists_that_differ_only_in_where_a_string_ends_differ():
    assert pack_strings(["ab", "c"])[1].tolist() != pack_strings(["a", "bc"])[1].tolist()


def test_a_lone_surrogate_as_json_allows_it_survives():
    assert unpack_strings(*pack_strings(["\ud83d", "😀"])) == ["\ud83d", "😀"]
