from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import Config, Content, EventType, Preprocess, Recommend
from headwater.deploy import state_digest
from headwater.preprocess import Preprocessor
from headwater.types import Entry, Event, Item, ItemRemoval, Request, User, UserRemoval
from tests.preprocess.plain import (
    Plain,
    batch_words,
    catalogue_after,
    cut,
    records,
    users_after,
    views,
    words,
)

TYPES = ("view", "rating", "purchase", "dislike", "skip", "search", "impression", "teleported")
GAPS = (0.0, 1.0, 60.0, 1800.0, 1801.0, 100_000.0)

EVENTS = st.builds(
    lambda type, user, item, session: Event("", type, user, 0.0, item, session_id=session),
    st.sampled_from(TYPES),
    st.sampled_from("uvw"),
    st.sampled_from([None, *"abcdef"]),
    st.sampled_from([None, None, "s", "t"]),
)
ENTRIES = st.one_of(
    EVENTS,
    EVENTS,
    EVENTS,
    st.builds(Item, st.sampled_from("abcdefgh"), available=st.booleans()),
    st.builds(ItemRemoval, st.sampled_from("abcxyz")),
    st.builds(User, st.sampled_from("uvwx"), st.just({"plan": "gold"})),
    st.builds(UserRemoval, st.sampled_from("uvwy")),
)


def stream_of(drawn):
    times = accumulate(gap for _, gap in drawn)
    return records([entry for entry, _ in drawn], [1e9 + time for time in times])


STREAMS = st.lists(st.tuples(ENTRIES, st.sampled_from(GAPS)), max_size=60).map(stream_of)
CUTS = st.lists(st.integers(0, 60), max_size=8)


def config(repeats=None):
    return Config(preprocess=Preprocess(history_length=4), recommend=Recommend(repeats=repeats))


def said(preprocessor, stream, ends=()):
    """What the preprocessor says of every event of a stream that is cut at ``ends``."""
    found = []
    for piece in cut(stream, ends):
        batch, _ = preprocessor.batch(piece)
        assert batch.end == piece[-1].offset
        found += batch_words(
            batch,
            list(preprocessor.users),
            list(preprocessor.items),
            preprocessor.type_names,
        )
    return found


@settings(max_examples=150)
@given(STREAMS, CUTS, st.sampled_from([None, True, False]), st.booleans())
def test_every_event_stands_beside_what_was_before_it(stream, ends, repeats, grouped):
    expected = Plain(config(repeats), grouped).batch(stream)
    assert said(Preprocessor(config(repeats), grouped=grouped), stream, ends) == expected


@settings(max_examples=50)
@given(STREAMS, CUTS, CUTS)
def test_where_batches_end_makes_no_difference(stream, ends, other_ends):
    one, other = Preprocessor(config()), Preprocessor(config())
    assert said(one, stream, ends) == said(other, stream, other_ends)
    assert state_digest(one.state()) == state_digest(other.state())


@settings(max_examples=50)
@given(STREAMS, CUTS)
def test_the_catalogue_is_as_the_newest_entries_say(stream, ends):
    preprocessor = Preprocessor(config())
    removed = [row for piece in cut(stream, ends) for row in preprocessor.batch(piece)[1].removed]
    ids, n = list(preprocessor.items), len(preprocessor.items)
    listed, withheld = catalogue_after(stream)
    found = preprocessor.catalogue
    assert {ids[row] for row in np.flatnonzero(found.listed(n))} == set(listed)
    assert {ids[row] for row in np.flatnonzero(found.withheld(n))} == withheld
    assert [found.get(row) for row in range(n)] == [listed.get(id) for id in ids]
    assert [ids[row] for row in removed] == [
        record.entry.item_id for record in stream if isinstance(record.entry, ItemRemoval)
    ]


@settings(max_examples=50)
@given(STREAMS, CUTS)
def test_users_are_as_the_newest_entries_say(stream, ends):
    preprocessor = Preprocessor(config())
    said(preprocessor, stream, ends)
    known = users_after(stream)
    assert {id: preprocessor.user(id) for id in "uvwxy" if preprocessor.user(id)} == known
    found, after = preprocessor.listed_users(-1, 10)
    assert after is None
    assert {user.user_id: user for user in found} == known


@settings(max_examples=50)
@given(STREAMS, st.integers(1, 4))
def test_pages_together_hold_every_item_once_in_a_stable_order(stream, n):
    preprocessor = Preprocessor(config())
    said(preprocessor, stream)
    pages = []
    after: int | None = -1
    while after is not None:
        found, after = preprocessor.listed_items(after, n)
        assert len(found) <= n
        pages += found
    listed, _ = catalogue_after(stream)
    assert pages == [listed[id] for id in preprocessor.items if id in listed]


@settings(max_examples=50)
@given(STREAMS, CUTS, st.integers(0, 60))
def test_a_loaded_state_goes_on_as_the_one_that_was_saved(stream, ends, place):
    one, other = Preprocessor(config()), Preprocessor(config())
    said(one, stream[:place])
    other.load({name: value.copy() for name, value in one.state().items()})
    assert state_digest(other.state()) == state_digest(one.state())
    assert said(other, stream[place:], ends) == said(one, stream[place:], ends)
    assert state_digest(other.state()) == state_digest(one.state())


def test_changes_say_what_items_are_about_in_order_and_who_is_gone():
    film = Item(
        "film",
        title="The Third Man (1949)",
        categories=("Noir", "Crime"),
        tags=("Crime", "Classic"),
        attributes={
            "studio": "London",
            "cast": ["Cotten", "Valli"],
            "minutes": 104.0,
            "stars": 4.5,
        },
    )
    expected = ["category:noir", "category:crime", "tag:crime", "tag:classic"]
    expected += ["attribute:studio=london", "attribute:cast=cotten", "attribute:cast=valli"]
    expected += ["attribute:minutes=104", "word:third", "word:man"]
    again = Item("film", categories=("noir",))
    entries: list[Entry] = [film, Item("bare"), ItemRemoval("bare"), again]
    for kept in (16, 3):
        preprocessor = Preprocessor(Config(content=Content(tokens=kept)))
        _, changes = preprocessor.batch(records(entries, range(4)))
        items, tokens = list(preprocessor.items), list(preprocessor.tokens)
        assert [items[row] for row in changes.described] == ["film", "bare", "film"]
        assert [[tokens[t] for t in row if t >= 0] for row in changes.tokens] == [
            expected[:kept],
            [],
            ["category:noir"],
        ]
        assert [items[row] for row in changes.removed] == ["bare"]


def test_a_vector_of_another_dimension_is_left_out_while_an_item_has_one_of_its_name():
    preprocessor = Preprocessor(config())

    def put(item_id: str, *, restart: bool = False, **vectors: int) -> set[str]:
        """The names of the vectors that are kept of an item's, by dimension."""
        nonlocal preprocessor
        if restart:
            other = Preprocessor(config())
            other.load(preprocessor.state())
            preprocessor = other
        item = Item(item_id, vectors={name: [1.0] * size for name, size in vectors.items()})
        _, changes = preprocessor.batch(records([item], [0.0]))
        tokens = list(preprocessor.tokens)
        (about,) = changes.tokens
        kept = preprocessor.item(item_id)
        assert kept is not None
        assert {tokens[t].split(":")[1] for t in about if t >= 0} == set(kept.vectors)
        return set(kept.vectors)

    assert put("a", image=3, sound=2) == {"image", "sound"}
    assert put("b", image=2, sound=2) == {"sound"}
    assert put("a", image=2) == set()  # nobody has one any more ...
    assert put("a", image=2) == {"image"}  # ... so that another one may be the first
    assert put("c", restart=True, image=3, sound=2) == {"sound"}
    assert preprocessor.dimensions() == {"image": 2, "sound": 2}
    preprocessor.batch(records([ItemRemoval("a")], [0.0]))
    assert preprocessor.dimensions() == {"sound": 2}


def test_a_plain_model_without_an_order_of_ties_is_noticed():
    stream = views([("u", "a", 0.0), ("u", "b", 0.0), ("u", "b", 5.0)])
    assert said(Preprocessor(config(), grouped=True), stream) != Plain(config()).batch(stream)


# --- by example ----------------------------------------------------------------------------------


def test_a_history_longer_than_the_window_is_counted_beyond_it():
    stream = views([("u", n, float(n)) for n in range(10)])
    last = said(Preprocessor(config()), stream)[-1]
    assert [item for item, _, _ in last["history"]] == ["5", "6", "7", "8"]
    assert last["history_length"] == 9


@pytest.mark.parametrize("ends", [(), (2,), (3,)])
def test_a_removed_user_is_one_that_was_never_seen(ends):
    before = views([("u", "a", 0.0), ("u", "b", 1.0), ("v", "a", 1.0)], "rating")
    removal = records([UserRemoval("u")], [1.0], after=3)
    after = [*views([("u", "c", 2.0)])]
    preprocessor = Preprocessor(config())
    (_, _, _, again) = said(preprocessor, [*before, *removal, *after], ends)
    assert (again["history"], again["history_length"], again["session_length"]) == ([], 0, 0)
    assert again["excluded"] == set()
    said(preprocessor, records([UserRemoval("u")], [3.0], after=5))
    of_removed, of_unknown, of_other = words_of(preprocessor, "u", "nobody", "v")
    assert {**of_removed, "user": None} == of_unknown
    assert of_other["excluded"] == {"a"}


def words_of(preprocessor, *users):
    contexts = preprocessor.contexts([Request(5, user) for user in users], 9.0)
    names = (list(preprocessor.users), list(preprocessor.items), preprocessor.type_names)
    return words(contexts, *names)


def test_rated_items_are_used_up_and_viewed_ones_are_not():
    stream = views([("u", "a", 0.0), ("u", "b", 1.0)], "rating") + views([("u", "c", 2.0)] * 2)
    assert said(Preprocessor(config()), stream)[-1]["excluded"] == {"a", "b"}
    assert said(Preprocessor(config(True)), stream)[-1]["excluded"] == set()
    assert said(Preprocessor(config(False)), stream)[-1]["excluded"] == {"a", "b", "c"}


def test_a_configured_type_has_its_weight_polarity_and_repeats():
    own = Config(events={"wave": EventType(weight=7.0, polarity=-1, repeats=False)})
    last = said(Preprocessor(own), views([("u", "a", 0.0), ("u", "b", 1.0)], "wave"))[-1]
    assert (last["weight"], last["polarity"], last["target"]) == (7.0, -1, False)
    assert last["history"] == [("a", "wave", 0.0)]
    assert last["excluded"] == {"a"}


@pytest.mark.parametrize(("pause", "session_length"), [(1800.0, 2), (1800.5, 0)])
def test_a_session_ends_by_a_pause_longer_than_the_gap(pause, session_length):
    stream = views([("u", "a", 0.0), ("u", "b", 10.0), ("u", "c", 10.0 + pause)])
    assert said(Preprocessor(config()), stream)[-1]["session_length"] == session_length


def test_a_session_ends_by_another_id():
    entries = [
        Event(f"e{n}", "view", "u", 0.0, "a", session_id=session)
        for n, session in enumerate(["s", "s", "t", "t", None, None])
    ]
    found = said(Preprocessor(config()), records(entries, range(6)))
    assert [event["session_length"] for event in found] == [0, 1, 0, 1, 2, 3]


def test_rows_are_given_in_log_order_whatever_the_entry():
    entries: list[Entry] = [
        Event("e0", "view", "u", 0.0, "seen"),
        Item("listed"),
        ItemRemoval("gone"),
        Event("e1", "view", "v", 0.0, "also seen"),
    ]
    preprocessor = Preprocessor(config())
    preprocessor.batch(records(entries, range(4)))
    assert list(preprocessor.items) == ["seen", "listed", "gone", "also seen"]
    assert list(preprocessor.users) == ["u", "v"]


def test_an_empty_batch_and_one_of_items_alone_hold_no_events():
    preprocessor = Preprocessor(config())
    for stream in ([], records([Item("a"), ItemRemoval("b")], [0.0, 1.0])):
        batch, _ = preprocessor.batch(stream)
        assert len(batch) == len(batch.contexts) == 0
        assert batch.end == len(stream)
        assert batch.contexts.history_items.shape == (0, 4)


# --- simultaneous events -------------------------------------------------------------------------


def grouped(rows, type="view", ends=()):
    return said(Preprocessor(config(False), grouped=True), views(rows, type), ends)


BASKETS = [
    ("u", "a", 1.0),
    ("v", "x", 1.0),
    ("u", "b", 1.0),
    ("u", "a", 1.0),
    ("v", "y", 1.0),
    ("u", "c", 2.0),
    ("v", "x", 2.0),
]


@pytest.mark.parametrize("ends", [(), (1, 3, 4), range(7)])
def test_a_group_is_predicted_from_before_it_and_masks_none_of_its_members(ends):
    found = grouped(BASKETS, ends=ends)
    assert [event["history_length"] for event in found] == [0, 0, 0, 0, 0, 3, 2]
    assert [event["excluded"] for event in found[:5]] == [set()] * 5
    assert found[5]["excluded"] == {"a", "b"}
    assert [item for item, _, _ in found[6]["history"]] == ["x", "y"]


@pytest.mark.parametrize("ends", [(), (1, 3, 4), range(7)])
def test_the_rows_of_one_item_in_a_group_are_one_target(ends):
    targets = [event["target"] for event in grouped(BASKETS, ends=ends)]
    assert targets == [True, True, True, False, True, True, True]


def test_in_file_order_a_group_masks_and_reads_its_members():
    found = said(Preprocessor(config(False)), views(BASKETS))
    assert [event["history_length"] for event in found] == [0, 0, 1, 2, 1, 3, 2]
    assert found[3]["excluded"] == {"a", "b"}
    assert all(event["target"] for event in found)
