from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from headwater.config import Config, Imbalance
from headwater.deploy import state_digest
from headwater.train._imbalance import log_keep, replay_chances, resampled, uniforms
from headwater.types import Batch, Ranking
from tests.model.arrays import batches, copied, small, stream
from tests.train.test_trainer import RATES, Recorded, course, mixed, parts

# --- random numbers of an event ------------------------------------------------------------------


def test_the_numbers_of_an_event_depend_on_seed_and_offset_alone():
    offsets = np.arange(1, 101)
    together = uniforms(3, offsets, 2)
    apart = [uniforms(3, offsets[a:b], 2) for a, b in pairwise((0, 1, 40, 100))]
    np.testing.assert_array_equal(np.concatenate(apart), together)
    np.testing.assert_array_equal(uniforms(3, offsets, 1)[:, 0], together[:, 0])
    assert (uniforms(4, offsets, 2) != together).all()


def test_the_numbers_are_uniform_and_those_of_two_draws_independent():
    numbers = uniforms(0, np.arange(20_000), 2)
    counts, _ = np.histogram(numbers, bins=20, range=(0.0, 1.0))
    assert ((counts > 1800) & (counts < 2200)).all(), "2,000 each, with a deviation of 44"
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.03
    assert abs(np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]) < 0.03


# --- the formulas --------------------------------------------------------------------------------


def test_items_are_kept_as_the_formula_says():
    shares = np.array([0.0, 0.01, 0.04, 0.25, 1.0], np.float32)
    np.testing.assert_allclose(np.exp(log_keep(shares, 0.01)), [1.0, 1.0, 0.5, 0.2, 0.1], rtol=1e-5)


def test_what_is_rare_is_drawn_more_often_up_to_the_cap():
    events, kinds = np.array([100, 25, 1, 100]), np.array([1, 1, 1, 2], np.uint8)
    by_item = replay_chances(events, kinds, Imbalance(rare_items=0.5, rare_at_most=100.0))
    np.testing.assert_allclose(by_item / by_item[0], [1, 2, 10, 1])
    by_type = replay_chances(events, kinds, Imbalance(rare_types=1.0))
    np.testing.assert_allclose(by_type / by_type[0], [1, 1, 1, 3])
    capped = replay_chances(
        events, kinds, Imbalance(rare_items=0.5, rare_types=1.0, rare_at_most=4.0)
    )
    np.testing.assert_allclose(capped / capped[0], [1, 2, 4, 3])


def test_an_example_is_resampled_as_often_as_its_weight_says():
    random = np.random.default_rng(0)
    weights = np.array([1.0, 5.0, 0.0, 2.0, 0.5, 1.5], np.float32)
    expected = weights / weights.sum() * len(weights)
    counts = np.array([resampled(weights, random.random()) for _ in range(4000)])
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.04)
    assert (np.abs(counts - expected) < 1.0).all()
    assert (counts.sum(axis=1) == len(weights)).all()


def test_equal_weights_are_resampled_once_each_and_columns_by_themselves():
    weights = np.array([[3.0, 1.0], [3.0, 0.0], [3.0, 0.0], [3.0, 1.0]], np.float32)
    counts = resampled(weights, np.array([0.5, 0.5]))
    assert counts[:, 0].tolist() == [1.0] * 4
    assert counts[:, 1].tolist() == [2.0, 0.0, 0.0, 2.0]
    assert resampled(weights[:0], np.array([0.5, 0.5])).shape == (0, 2)


# --- recalibration -------------------------------------------------------------------------------
# Visits of two events: an anchor, of weight 0, and what is chosen then. The chance of a choice
# depends on the anchor; whether it is viewed or bought depends on both.

ANCHORS, CHOICES = 2, 4
CHOSEN = np.array([[0.70, 0.15, 0.10, 0.05], [0.30, 0.50, 0.05, 0.15]])
VIEWED = np.array([[0.95, 0.50, 0.20, 0.90], [0.20, 0.90, 0.50, 0.80]])
BOUGHT_WEIGHT = 2.0


def expected() -> np.ndarray:
    """(anchors, choices) share of the full stream's weight."""
    weight = CHOSEN * (VIEWED + BOUGHT_WEIGHT * (1.0 - VIEWED))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def visits(n: int, seed: int) -> list[tuple[str, str, float, str]]:
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(n):
        anchor = rng.integers(ANCHORS)
        choice = rng.choice(CHOICES, p=CHOSEN[anchor])
        kind = "view" if rng.random() < VIEWED[anchor, choice] else "purchase"
        rows.append((f"u{u}", f"anchor{anchor}", 1e9 + 60.0 * u, "anchor"))
        rows.append((f"u{u}", f"choice{choice}", 1e9 + 60.0 * u + 1, kind))
    return rows


def calibrated(
    *, view: dict[str, float], negatives: int = 64, uncorrected: bool = False, **imbalance: Any
) -> tuple[np.ndarray, np.ndarray]:
    """What is learned: (anchors, choices) chances by the sequence expert, and by the mixture."""
    config = Config.model_validate(
        {
            "events": {
                "anchor": {"weight": 0.0},
                "view": view,
                "purchase": {"weight": BOUGHT_WEIGHT},
            },
            "preprocess": {"history_length": 2},
            "sequence": {
                "dim": 8,
                "layers": 0,
                "negatives": negatives,
                "row_learning_rate": 0.1,
                "earlier_positions": 0,
            },
            "mixture": {"hidden": 8, "learning_rate": 0.02},
            "imbalance": imbalance,
        }
    )
    found = Recorded(config)
    if uncorrected:
        _forget_corrections(found)
    records = stream(visits(12_000, seed=0))
    made, items = batches(config, records, range(0, len(records), 100))
    found.grow(len(items))
    choices = np.array([items.index(f"choice{c}") for c in range(CHOICES)], np.int32)
    anchors = np.array([items.index(f"anchor{a}") for a in range(ANCHORS)], np.int32)
    width = len(found.recommender.features)
    for batch in made:
        found.taught(batch, _lists(batch, choices, anchors, width), RATES)
    first = {
        int(batch.contexts.history_items[b, -1]): (batch, b)
        for batch in made
        for b in range(len(batch))
    }
    users = []
    for anchor in anchors.tolist():
        batch, b = first[anchor]
        users.append(found.model.sequence.encode(batch.contexts)[b])
    by_sequence = found.model.sequence.scores(
        np.stack(users), np.tile(choices, (ANCHORS, 1))
    ).astype(np.float64)
    by_mixture = found.model.mixture.scores(_features(np.arange(ANCHORS), width))
    return _softmax(by_sequence), _softmax(by_mixture.astype(np.float64))


def _forget_corrections(found: Recorded) -> None:
    sequence, mixture = found.model.sequence, found.model.mixture
    learn_examples, learn_lists = sequence.begin, mixture.step

    def without(examples, negatives, _, rate):
        return learn_examples(examples, negatives, None, rate)

    sequence.begin = without  # type: ignore[method-assign,assignment]
    mixture.step = lambda *lists: learn_lists(*lists[:5])  # type: ignore[method-assign]


def _lists(batch: Batch, choices: np.ndarray, anchors: np.ndarray, width: int) -> Ranking:
    n = len(batch)
    rows = np.tile(choices, (n, 1))
    after = (batch.contexts.history_items[:, -1] == anchors[1]).astype(np.int64)
    return Ranking(rows, np.zeros((n, CHOICES), np.float32), _features(after, width), {})


def _features(anchor: np.ndarray, width: int) -> np.ndarray:
    """A column per pair of an anchor and a choice."""
    out = np.zeros((len(anchor), CHOICES, width), np.float32)
    for c in range(CHOICES):
        out[np.arange(len(anchor)), c, CHOICES * anchor + c] = 1.0
    return out


def _softmax(scores: np.ndarray) -> np.ndarray:
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def off(found: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """Largest error of a chance, by the sequence expert and by the mixture."""
    return [float(np.abs(chance - expected()).max()) for chance in found]


def test_the_full_stream_teaches_its_own_chances():
    assert max(off(calibrated(view={}))) < 0.06


def test_types_that_are_thinned_teach_the_chances_of_the_full_stream():
    assert max(off(calibrated(view={"keep": 0.2}))) < 0.06
    # A weight of 0.2 over a share kept of 0.2: the kept views weigh as before.
    assert min(off(calibrated(view={"keep": 0.2, "weight": 0.2}))) > 0.15


@pytest.mark.parametrize("negatives", [64, 3])
def test_items_that_are_thinned_teach_the_chances_of_the_full_stream(negatives):
    assert max(off(calibrated(view={}, negatives=negatives, item_share=0.04))) < 0.06
    bare = calibrated(view={}, negatives=64, item_share=0.04, uncorrected=True)
    assert min(off(bare)) > 0.1


def test_resampling_teaches_what_weights_teach():
    assert max(off(calibrated(view={}, by="resample"))) < 0.06


# --- what a step is given ------------------------------------------------------------------------


def taught(rows: Any = None, size: int = 50, **sections: Any) -> Recorded:
    config = small(**sections)
    found = Recorded(config)
    made, n_items = course(rows or mixed(), config, size)
    found.grow(n_items)
    for batch in made:
        found.step(batch)
    return found


ALONE = {"replay": 0.0, "earlier_positions": 0}
THINNED = {"view": {"keep": 0.3}}
EVERYTHING: dict[str, Any] = {
    "events": THINNED,
    "sequence": {"negatives": 8},
    "mixture": {"members": 2},
    "imbalance": {"by": "resample", "rare_items": 0.5, "rare_types": 0.5, "item_share": 0.02},
}


def test_a_share_of_the_events_is_kept_and_makes_up_for_the_rest():
    found = taught(mixed(3000), sequence=ALONE, events=THINNED)
    weights = Counter(round(w, 3) for e in found.examples for w in e.weights[:, 0].tolist())
    whole = Counter(
        w for e in taught(mixed(3000), sequence=ALONE).examples for w in e.weights[:, 0].tolist()
    )
    assert set(weights) == {1.0, 5.0, round(1 / 0.3, 3)}, "ratings, purchases and kept views"
    assert weights[5.0] == whole[5.0]
    views = whole[1.0] - weights[1.0]
    assert abs(weights[round(1 / 0.3, 3)] / views - 0.3) < 0.06


@pytest.mark.parametrize("sections", [{"events": THINNED}, {"imbalance": {"rare_items": 1.0}}])
def test_counts_see_every_event(sections):
    counts = ("popularity.", "transitions.", "neighbours.")
    assert parts(taught(**sections).state(), *counts) == parts(taught().state(), *counts)


def test_which_events_are_kept_does_not_depend_on_where_batches_end():
    kept = [
        [
            t
            for e in taught(size=size, sequence=ALONE, events=THINNED).examples
            for t in e.targets[:, 0]
        ]
        for size in (50, 7)
    ]
    assert kept[0] == kept[1]


def test_members_get_draws_of_their_own():
    config: dict[str, Any] = {"events": THINNED, "mixture": {"members": 2, "replay": 0.0}}
    weights = np.concatenate([lists[3] for lists in taught(mixed(1500), **config).lists])
    assert weights.shape[1] == 2
    assert weights.any(axis=1).all(), "what no member keeps isn't learned"
    assert ((weights > 0)[:, 0] != (weights > 0)[:, 1]).any()


def test_replay_draws_rare_items_and_types_more_often():
    rng = np.random.default_rng(0)
    rows = [
        (n % 20, "hot" if rng.random() < 0.8 else f"i{rng.integers(100)}", 1e9 + 60.0 * n)
        + (("purchase",) if rng.random() < 0.05 else ("view",))
        for n in range(2000)
    ]

    def share(of: str, **imbalance: float) -> float:
        found = taught(rows, sequence={"earlier_positions": 0}, imbalance=imbalance)
        _, items = batches(small(), stream(rows))
        rare = [
            (e.targets[:, 0] != items.index("hot")) if of == "item" else e.weights[:, 0] == 5.0
            for e in found.examples
        ]
        return float(np.concatenate(rare).mean())

    assert share("item", rare_items=0.5) > 1.5 * share("item")
    assert share("type", rare_types=0.5) > 1.5 * share("type")


def test_the_correction_knows_what_is_thinned_and_what_is_over_sampled():
    sections: dict[str, Any] = {
        "sequence": {"negatives": 8, "earlier_positions": 0},
        "imbalance": {"rare_items": 1.0, "item_share": 0.03},
    }
    found = taught(mixed(1000), **sections)
    trainer, model = found.trainer, found.model
    rows = np.arange(30, dtype=np.int32)
    made, _ = course(mixed(1000), small(**sections))
    ranking = found.ranking(made[-1])
    model.count(made[-1])
    # The buffer and the counts as the step finds them.
    share = model.popularity.shares(rows).mean(axis=-1).astype(np.float64)
    keep = np.minimum(1.0, np.sqrt(0.03 / share))
    taught_items = made[-1].items[made[-1].targets & (made[-1].weights > 0)]
    targets = trainer._histories.buffer.column("targets").copy()
    drawn = trainer._histories.chances()
    assert drawn is not None
    replayed = np.bincount(targets, drawn, 30) / drawn.sum()
    before = len(found.examples)
    seen: list[np.ndarray] = []
    learn = model.sequence.begin

    def spied(examples, negatives, correction, rate):
        seen.append(correction(rows))
        return learn(examples, negatives, correction, rate)

    model.sequence.begin = spied  # type: ignore[method-assign,assignment]
    trainer.learn(made[-1], ranking, RATES)
    assert len(found.examples) == before + 1
    fresh = int(trainer._histories.buffer.state()["added"]) - len(targets)
    again = len(found.examples[-1].items) - fresh
    assert fresh > 0
    assert again > 0
    stream_share = share * keep / keep[taught_items].mean()
    absent = (1 - 1 / 30) ** 8 * (1 - stream_share) ** fresh * (1 - replayed) ** again
    np.testing.assert_allclose(seen[0], np.log1p(-absent) - np.log(keep), rtol=1e-3, atol=1e-4)


# --- determinism ---------------------------------------------------------------------------------


def test_two_runs_with_everything_on_are_equal_bit_for_bit():
    one, other = taught(**EVERYTHING), taught(**EVERYTHING)
    assert state_digest(one.state()) == state_digest(other.state())
    assert state_digest(one.state()) != state_digest(taught().state())


def test_a_loaded_state_with_everything_on_goes_on_bit_for_bit():
    config = small(**EVERYTHING)
    made, n_items = course(mixed(), config)
    one, other = Recorded(config), Recorded(config)
    one.grow(n_items)
    for batch in made[:8]:
        one.step(batch)
    other.load(copied(one.state()))
    for batch in made[8:]:
        one.step(batch)
        other.step(batch)
    assert state_digest(one.state()) == state_digest(other.state())
