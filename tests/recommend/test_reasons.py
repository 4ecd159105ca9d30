from __future__ import annotations

import numpy as np
import pytest

from headwater.loop import Fold
from headwater.model import EXPERTS
from headwater.types import NO_ROW
from tests.recommend.learned import NOW, learned, requests

N = 8
ASSOCIATING = ("transitions", "neighbours", "precedents", "habits", "content")


@pytest.fixture(scope="module")
def fold() -> Fold:
    return learned()


@pytest.fixture(scope="module")
def explained(fold):
    contexts = fold.preprocess.contexts(requests(), NOW)
    ranking = fold.recommender.rank(contexts, fold.withheld())
    reasons = fold.recommender.reasons(contexts, ranking, N, fold.preprocess.items.id)
    return contexts, ranking, reasons


def test_every_item_has_one_reason_per_expert_that_has_a_share_the_largest_first(fold, explained):
    _, ranking, reasons = explained
    found = fold.model.mixture.contributions(ranking.features)
    assert len(reasons) == len(ranking.rows)
    for b, of_list in enumerate(reasons):
        assert len(of_list) == min(N, int((ranking.rows[b] != NO_ROW).sum())) > 0
        for place, of_item in enumerate(of_list):
            with_share = [name for name in EXPERTS if abs(found[name][b, place]) > 5e-7]
            assert sorted(reason.expert for reason in of_item) == sorted(with_share)
            shares = [reason.contribution for reason in of_item]
            assert shares == sorted(shares, reverse=True)


def test_contributions_add_up_to_the_score_less_that_of_silence(fold, explained):
    _, ranking, reasons = explained
    mixture = fold.model.mixture
    silent = ranking.features.copy()
    for columns in mixture.groups.values():
        silent[:, :, columns] = mixture.silence[columns]
    base = mixture.scores(silent)
    for b, of_list in enumerate(reasons):
        for place, of_item in enumerate(of_list):
            total = sum(reason.contribution for reason in of_item)
            expected = ranking.scores[b, place] - base[b, place]
            assert total == pytest.approx(float(expected), abs=1e-4)


def test_an_item_is_there_because_of_one_of_the_history(fold, explained):
    contexts, _, reasons = explained
    named = set()
    for b, of_list in enumerate(reasons):
        history = contexts.history_items[b]
        ids = {fold.preprocess.items.id(row) for row in history.tolist() if row != NO_ROW}
        for of_item in of_list:
            for reason in of_item:
                assert reason.because_of is None or reason.because_of in ids
                named |= {(reason.expert, reason.because_of is not None)}
                if not ids:
                    assert reason.because_of is None
                elif reason.expert == "sequence":
                    assert reason.because_of is not None
    assert ("popularity", True) not in named, "popularity looks at no history"
    assert ("transitions", True) in named


def test_an_expert_that_had_nothing_to_say_gives_no_reason(explained):
    contexts, _, reasons = explained
    (nobody,) = np.flatnonzero((contexts.history_lengths == 0) & (np.arange(6) == 2))
    for of_item in reasons[nobody]:
        assert of_item
        assert not {reason.expert for reason in of_item} & set(ASSOCIATING)


def test_the_reasons_of_one_list_are_the_same_alone(fold, explained):
    _, _, reasons = explained
    for b, request in enumerate(requests()):
        contexts = fold.preprocess.contexts([request], NOW)
        ranking = fold.recommender.rank(contexts, fold.withheld())
        (alone,) = fold.recommender.reasons(contexts, ranking, N, fold.preprocess.items.id)
        for one, other in zip(alone, reasons[b], strict=True):
            assert [(r.expert, r.because_of) for r in one] == [
                (r.expert, r.because_of) for r in other
            ]
            assert [r.contribution for r in one] == pytest.approx(
                [r.contribution for r in other], abs=1e-4
            )


def test_reasons_for_no_items_are_none(fold):
    contexts = fold.preprocess.contexts(requests(), NOW)
    ranking = fold.recommender.rank(contexts, fold.withheld())
    assert fold.recommender.reasons(contexts, ranking, 0, str) == [[]] * len(requests())
