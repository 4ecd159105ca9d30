from __future__ import annotations

import numpy as np
import pytest

from headwater.config import Config
from headwater.config import Content as Settings
from headwater.deploy import state_digest
from headwater.log.memory import MemoryEventsLog, MemoryUpdatesLog
from headwater.loop import Follower, Learner
from headwater.model import Content
from headwater.preprocess import Preprocessor
from headwater.types import NO_ROW, Event, Item, ItemRemoval, Record, Request
from tests.model.arrays import small

GENRES = {"a": ["noir", "crime"], "b": ["noir"], "c": ["crime"], "d": ["farce"], "e": []}


def put(*items: Item) -> tuple[Content, Preprocessor]:
    preprocess, content = Preprocessor(Config()), Content(Settings())
    records = [Record(k, 0.0, 0.0, item) for k, item in enumerate(items, start=1)]
    _, changes = preprocess.batch(records)
    content.grow(len(preprocess.items))
    content.describe(changes.described, changes.tokens)
    return content, preprocess


@pytest.fixture
def films() -> tuple[Content, Preprocessor]:
    return put(*(Item(name, categories=tuple(genres)) for name, genres in GENRES.items()))


def asked(preprocess: Preprocessor, *items: str):
    return preprocess.contexts([Request(10, session_items=items)], 1e9)


def plain_score(history: list[str], item: str) -> float:
    """The formula of the module, by dictionaries."""
    genres = {name: list(found) for name, found in GENRES.items()}
    described = [found for found in genres.values() if found]
    idf = {
        token: np.log1p(len(described) / sum(token in found for found in described))
        for token in {token for found in described for token in found}
    }

    def unit(name: str) -> dict[str, float]:
        norm = np.sqrt(sum(idf[token] ** 2 for token in genres[name]))
        return {token: idf[token] / norm for token in genres[name]}

    total = 0.0
    for distance, before in enumerate(reversed(history), start=1):
        mine, theirs = unit(before), unit(item)
        total += sum(mine[t] * theirs.get(t, 0.0) for t in mine) / np.sqrt(distance)
    return total


def test_scores_are_the_formula(films):
    content, preprocess = films
    history = ["c", "d", "a"]
    contexts = asked(preprocess, *history)
    rows = np.arange(5, dtype=np.int32)[None]
    scores = content.scores(contexts, rows)[0]
    expected = [plain_score(history, name) if GENRES[name] else 0.0 for name in GENRES]
    assert scores.tolist() == pytest.approx(expected, rel=1e-5)


def test_candidates_are_the_best_scores_without_what_may_not_be_shown(films):
    content, preprocess = films
    contexts = preprocess.contexts(
        [Request(10, session_items=("a",), exclude=frozenset({"c"}))], 1e9
    )
    withheld = np.zeros(5, np.bool_)
    rows, scores = content.candidates(contexts, withheld, 3)
    found = [preprocess.items.id(row) for row in rows[0].tolist() if row != NO_ROW]
    assert found == ["a", "b"]  # "c" is excluded, "d" and "e" share nothing
    assert scores[0, :2].tolist() == content.scores(contexts, rows)[0, :2].tolist()
    withheld[preprocess.items.find("b")] = True
    rows, _ = content.candidates(contexts, withheld, 3)
    assert [row for row in rows[0].tolist() if row != NO_ROW] == [preprocess.items.find("a")]


def test_sources_are_the_most_alike_items_of_the_history(films):
    content, preprocess = films
    contexts = asked(preprocess, "d", "c", "b")
    rows = np.array([[preprocess.items.find(name) for name in "acde"]], np.int32)
    sources = content.sources(contexts, rows)[0].tolist()
    names = [None if row == NO_ROW else preprocess.items.id(row) for row in sources]
    assert names == ["b", "c", "d", None]


def test_a_new_description_replaces_the_old_one(films):
    content, preprocess = films
    row = preprocess.items.find("d")
    noir = preprocess.tokens.find("category:noir")
    content.describe(np.array([row], np.int32), np.array([[noir, NO_ROW]], np.int32))
    contexts = asked(preprocess, "b")
    rows, _ = content.candidates(contexts, np.zeros(5, np.bool_), 5)
    assert preprocess.items.find("d") in rows[0]
    contexts = asked(preprocess, "d")
    assert content.scores(contexts, np.array([[row]], np.int32))[0, 0] == pytest.approx(1.0)


def test_state_round_trip(films):
    content, preprocess = films
    again = Content(Settings())
    again.load(content.state())
    assert state_digest(again.state()) == state_digest(content.state())
    contexts = asked(preprocess, "a")
    rows, scores = again.candidates(contexts, np.zeros(5, np.bool_), 5)
    expected = content.candidates(contexts, np.zeros(5, np.bool_), 5)
    assert (rows == expected[0]).all() and (scores == expected[1]).all()


def stream() -> list[Event | Item]:
    films: list[Event | Item] = [
        Item(f"{genre}{k}", title=f"{genre} number {k}", categories=(genre,))
        for genre in ("noir", "farce")
        for k in range(30)
    ]
    events = [
        Event(f"{user}-{k}", "rating", f"u{user}", 1e9 + 60.0 * k + user, f"{genre}{k}")
        for k in range(8)
        for user, genre in enumerate(("noir", "farce") * 4)
    ]
    return films + events


def test_an_item_that_was_put_a_moment_ago_is_in_the_next_list():
    """No event has named it; only what it is about can bring it to those who like that."""
    events, updates = MemoryEventsLog(), MemoryUpdatesLog()
    config = small(recommend={"catalogue": "all"})
    learner, follower = (role(config, events, updates, None) for role in (Learner, Follower))
    events.append(stream(), 2e9)
    while learner.step():
        learner.publish()
    events.append([Item("new", title="The newest noir", categories=("noir",))], 2e9)
    follower.catch_up()
    likes_noir, _ = follower.recommend([Request(60, "u0"), Request(60, "u1")], 2e9)
    found = {item.item_id: item for item in likes_noir.items}
    assert "new" in found
    assert any(
        reason.expert == "content" and reason.because_of is not None
        for reason in found["new"].reasons
    )
    events.append([ItemRemoval("new")], 2e9)
    follower.catch_up()
    (after,) = follower.recommend([Request(60, "u0")], 2e9)
    assert "new" not in {item.item_id for item in after.items}


def test_batch_boundaries_do_not_matter():
    entries = [*stream(), Item("noir3", categories=("farce",)), Item("noir3", tags=("old",))]

    def folded(cuts: int):
        events = MemoryEventsLog()
        events.append(entries, 2e9)
        learner = Learner(small(train={"batch_events": cuts}), events, MemoryUpdatesLog(), None)
        while learner.step():
            pass
        return state_digest(learner.fold.model.content.state())

    assert folded(7) == folded(100) == folded(1)
