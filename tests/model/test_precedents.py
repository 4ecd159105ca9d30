"""The kernels against the formula of the module, written down plainly."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from headwater.config import Precedents as Settings
from headwater.model import Precedents
from headwater.types import NO_ROW
from tests.model.arrays import batches, contexts, copied, small, stream

A, B, C, R = 0.75, 0.8, 0.7, 0.25


def events(n, seed=0, users=6, items=9):
    random = np.random.default_rng(seed)
    return [
        (int(random.integers(users)), int(random.integers(items)), 1e9 + 60.0 * k) for k in range(n)
    ]


def learned(rows, settings, ends=()):
    expert = Precedents(settings)
    made, items = batches(small(), stream(rows), ends)
    for batch in made:
        expert.grow(len(items))
        expert.learn(batch)
    return expert, items


def plain(rows, settings, user, history, gone=()):
    """s(i) by its definition, from a list of (user, item, time); and by item of the history."""
    kept = [(n, u, i) for n, (u, i, _) in enumerate(rows) if n >= len(rows) - settings.events]
    counts: dict[int, int] = defaultdict(int)
    for _, i, _ in rows:
        counts[i] += 1
    precedents = []
    for distance, item in enumerate(history[::-1][: settings.window], start=1):
        same = [event for event in kept if event[2] == item and item not in gone][::-1]
        weight = A ** (distance - 1) / (counts[item] + 1) ** R
        precedents += [
            (event, weight, item) for event in same[: settings.occurrences] if event[1] != user
        ]
    likeness: dict[int, float] = defaultdict(float)
    for (_, v, _), weight, _ in precedents:
        likeness[v] += weight
    scores: dict[int, float] = defaultdict(float)
    parts: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for (n, v, _), weight, source in precedents:
        own = [event for event in kept if event[1] == v]
        place = [m for m, _, _ in own].index(n)
        ways = [(own[place + 1 :], 1.0), (own[:place][::-1], C)]
        for others, factor in ways:
            for step, (_, _, item) in enumerate(others[: settings.reach]):
                if item not in gone:
                    gain = likeness[v] * weight * factor * B**step
                    scores[item] += gain
                    parts[item][source] += gain
    return scores, parts


SETTINGS = {
    "default": Settings(),
    "narrow": Settings(window=2, occurrences=3, reach=2),
    "forgetful": Settings(events=100, occurrences=5),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("cuts", [(), (7, 50, 51, 200)])
def test_scores_are_those_of_the_formula(name, cuts):
    settings, rows = SETTINGS[name], events(260)
    expert, items = learned(rows, settings, cuts)
    histories = [[0, 1, 2], [3], [4, 4, 5, 6, 7, 8], []]
    asked = contexts([[items.index(str(i)) for i in history] for history in histories])
    every = np.tile(np.arange(len(items), dtype=np.int32), (len(histories), 1))
    found = expert.weigh(asked).scores(every)
    users = user_rows(rows)
    for b, history in enumerate(histories):
        expected, _ = plain(rows, settings, users[b], history)
        values = [expected[int(item)] for item in items]
        np.testing.assert_allclose(found[b], values, rtol=1e-4)


@pytest.mark.parametrize(
    ("before", "after"), [(100, 100), (150, 100), (100, 150), (100, 1000), (1000, 100)]
)
def test_a_ring_of_another_size_takes_the_newest_events_over_and_goes_on(before, after):
    rows = events(260)
    (first, second), items = batches(small(), stream(rows), (200,))
    saved, expert = Precedents(Settings(events=before)), Precedents(Settings(events=after))
    saved.grow(len(items))
    saved.learn(first)
    expert.load(copied(saved.state()))
    assert len(expert.state()["item"]) <= after
    asked = contexts([[items.index(str(i)) for i in (0, 1, 2)]])
    every = np.arange(len(items), dtype=np.int32)[None]
    for seen, known in ((rows[:200], min(before, 200)), (rows, min(before, 200) + 60)):
        if seen is rows:
            expert.learn(second)
        settings = Settings(events=min(after, known))
        expected, _ = plain(seen, settings, user_rows(rows)[0], [0, 1, 2])
        values = [expected[int(item)] for item in items]
        np.testing.assert_allclose(expert.weigh(asked).scores(every)[0], values, rtol=1e-4)


def user_rows(rows):
    """Row -> user: rows are given in order of first sighting."""
    return list(dict.fromkeys(user for user, _, _ in rows))


def test_the_best_are_the_highest_scores_in_order():
    expert, items = learned(events(200), Settings())
    asked = contexts([[0, 1], [2]], excluded=[[3], []])
    withheld = np.zeros(len(items), np.bool_)
    withheld[1] = True
    rows, scores = expert.weigh(asked).best(withheld, 5)
    every = np.tile(np.arange(len(items), dtype=np.int32), (2, 1))
    values = expert.weigh(asked).scores(every)
    values[:, 1] = values[0, 3] = 0
    for b in range(2):
        order = np.argsort(-values[b], kind="stable")[:5]
        assert rows[b].tolist() == order.tolist()
        assert scores[b].tolist() == values[b][order].tolist()


def test_sources_are_the_items_whose_precedents_say_most():
    rows, settings = events(200), Settings()
    expert, items = learned(rows, settings)
    history = [0, 4, 7]
    asked = contexts([[items.index(str(i)) for i in history]])
    every = np.arange(len(items), dtype=np.int32)[None]
    found = expert.weigh(asked).sources(every)[0]
    _, parts = plain(rows, settings, user_rows(rows)[0], history)
    for row, item in enumerate(items):
        best = max(parts[int(item)], key=lambda source: parts[int(item)][source])
        assert items[found[row]] == str(best)


def test_the_user_is_no_precedent_of_its_own():
    expert, items = learned([(0, 1, 1e9), (0, 2, 1e9 + 1), (0, 1, 1e9 + 2)], Settings())
    asked = contexts([[items.index("1")]])
    nobody = contexts([[items.index("1")]])
    nobody.users[:] = NO_ROW
    every = np.arange(len(items), dtype=np.int32)[None]
    assert not expert.weigh(asked).scores(every).any()
    assert expert.weigh(nobody).scores(every).any()


def test_a_forgotten_item_is_neither_proposed_nor_a_precedent():
    rows, settings = events(200), Settings()
    expert, items = learned(rows, settings)
    expert.forget(np.array([items.index("1"), items.index("3")], np.int32))
    history = [0, 1, 2]
    asked = contexts([[items.index(str(i)) for i in history]])
    every = np.arange(len(items), dtype=np.int32)[None]
    expected, _ = plain(rows, settings, user_rows(rows)[0], history, gone={1, 3})
    assert {items[row] for row in np.flatnonzero(expert.weigh(asked).scores(every)[0])} == {
        str(item) for item, score in expected.items() if score > 0
    }


def test_nothing_learned_says_nothing():
    expert = Precedents(Settings())
    expert.grow(3)
    asked = contexts([[0], []])
    rows, _ = expert.weigh(asked).best(np.zeros(3, np.bool_), 2)
    assert rows.tolist() == [[NO_ROW] * 2] * 2
    assert (expert.weigh(asked).sources(np.zeros((2, 1), np.int32)) == NO_ROW).all()


def test_a_history_longer_than_the_window_counts_no_further():
    rows, settings = events(200), Settings(window=2)
    expert, items = learned(rows, settings)
    every = np.tile(np.arange(len(items), dtype=np.int32), (2, 1))
    asked = contexts([[1, 2, 3, 4], [3, 4]])
    asked.users[:] = NO_ROW
    found = expert.weigh(asked).scores(every)
    assert found[0].tolist() == found[1].tolist()


def test_what_a_forgotten_user_did_is_no_precedent_nor_the_past_of_who_has_the_row():
    rows = [(0, 1), (0, 2), (1, 1), (1, 3), (0, 1), (0, 4)]
    made, items = batches(small(), stream([(*row, 1e9 + n) for n, row in enumerate(rows)]), [4])
    expert = Precedents(Settings())
    asked = contexts([[items.index("1")]])
    asked.users[:] = NO_ROW
    every = np.arange(len(items), dtype=np.int32)[None]

    def proposed():
        return {items[row] for row in np.flatnonzero(expert.weigh(asked).scores(every)[0])}

    expert.grow(len(items))
    expert.learn(made[0])
    assert proposed() == {"2", "3"}
    expert.forget_users(np.array([0, 99], np.int32))
    assert proposed() == {"3"}
    expert.learn(made[1])
    assert proposed() == {"3", "4"}


def test_an_event_of_nobody_known_is_nobodys():
    made, items = batches(small(), stream([(0, 1, 1e9), (0, 2, 1e9 + 1), (1, 1, 1e9 + 2)]))
    expert = Precedents(Settings())
    expert.grow(len(items))
    made[0].contexts.users[:2] = NO_ROW
    expert.learn(made[0])
    assert expert.state()["counted"][0] == 1
    assert expert.state()["newest_of_user"].tolist() == [-1, 0]
