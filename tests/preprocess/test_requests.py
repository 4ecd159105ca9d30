from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import Config, EventType
from headwater.deploy import state_digest
from headwater.preprocess import Preprocessor
from headwater.types import Request
from tests.preprocess.plain import Plain, views, words
from tests.preprocess.test_batches import STREAMS, config, said

REQUESTS = st.lists(
    st.builds(
        Request,
        n=st.just(5),
        user_id=st.sampled_from([None, "u", "v", "nobody"]),
        session_items=st.lists(st.sampled_from([*"abc", "nothing"]), max_size=7).map(tuple),
        exclude=st.frozensets(st.sampled_from([*"abc", "nothing"])),
    ),
    min_size=1,
    max_size=6,
)


def asked(preprocessor, requests, now):
    return words(
        preprocessor.contexts(requests, now),
        list(preprocessor.users),
        list(preprocessor.items),
        preprocessor.type_names,
    )


def expected(plain, preprocessor, request, now):
    """What ``Plain`` knows of a request: its user's history, and the session behind it."""
    known = set(preprocessor.items)
    user = request.user_id if request.user_id in set(preprocessor.users) else None
    context = plain.context(user, now, None)
    session = [item for item in request.session_items if item in known]
    context["history"] += [(item, "view", now) for item in session]
    context["history"] = context["history"][-plain.length :]
    context["history_length"] += len(session)
    context["session_length"] += len(session)
    if plain.repeats is False:
        context["excluded"] |= set(session)
    context["excluded"] |= request.exclude & known
    return context


@settings(max_examples=100)
@given(STREAMS, REQUESTS, st.sampled_from([0.0, 1800.0, 1801.0]), st.sampled_from([None, False]))
def test_a_request_knows_its_user_its_session_and_what_it_excludes(stream, requests, wait, repeats):
    plain, preprocessor = Plain(config(repeats)), Preprocessor(config(repeats))
    plain.batch(stream)
    said(preprocessor, stream)
    now = (stream[-1].stream_time if stream else 1e9) + wait
    before = state_digest(preprocessor.state())
    assert asked(preprocessor, requests, now) == [
        expected(plain, preprocessor, request, now) for request in requests
    ]
    assert state_digest(preprocessor.state()) == before


def test_a_request_sees_what_an_event_at_its_time_would_see():
    stream = views([("u", n, 60.0 * n) for n in range(7)], "rating")
    preprocessor = Preprocessor(config())
    said(preprocessor, stream[:6])
    asking = asked(preprocessor, [Request(5, "u")], 360.0)
    event = said(preprocessor, stream[6:])[0]
    assert asking == [{name: event[name] for name in asking[0]}]


def test_unknown_users_and_items_stay_unknown():
    preprocessor = Preprocessor(config())
    said(preprocessor, views([("u", "a", 0.0)]))
    request = Request(5, "nobody", session_items=("a", "no item"), exclude=frozenset({"no item"}))
    (found,) = asked(preprocessor, [request], 9.0)
    assert found == {
        "user": None,
        "time": 9.0,
        "history": [("a", "view", 9.0)],
        "history_length": 1,
        "session_length": 1,
        "excluded": set(),
    }
    assert list(preprocessor.users) == ["u"]
    assert list(preprocessor.items) == ["a"]


def test_nothing_is_known_before_the_first_event():
    (found,) = asked(Preprocessor(config()), [Request(5, "u", ("a",))], 9.0)
    assert found["user"] is None
    assert (found["history"], found["excluded"]) == ([], set())


def test_a_session_of_views_is_used_up_where_views_are():
    own = Config(events={"view": EventType(repeats=False)})
    preprocessor = Preprocessor(own)
    said(preprocessor, views([("u", "a", 0.0), ("u", "b", 0.0)]))
    (found,) = asked(preprocessor, [Request(5, session_items=("b", "a"))], 9.0)
    assert found["excluded"] == {"a", "b"}


def test_sessions_of_one_call_do_not_mix():
    preprocessor = Preprocessor(config())
    said(preprocessor, views([("u", item, 0.0) for item in "abc"]))
    requests = [Request(5, "u", ("b",)), Request(5), Request(5, session_items=("c", "a"))]
    found = asked(preprocessor, requests, 9.0)
    assert [[item for item, _, _ in one["history"]] for one in found] == [
        ["a", "b", "c", "b"],
        [],
        ["c", "a"],
    ]
    assert found == [asked(preprocessor, [request], 9.0)[0] for request in requests]
