"""The nouns that pass between the stages of the loop.

Everything here is data: no behaviour beyond a derived property, no imports
beyond msgspec (records that are stored or sent) and numpy (arrays that are
computed on). Importing this module never imports torch.

Shapes use ``B`` for events in a micro-batch, ``L`` for history length, ``C``
for candidates per list, ``K`` for the length of one expert's own list and
``F`` for mixture features. Times are seconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

State = dict[str, NDArray[Any]]
"""What a component remembers, as named arrays: the content of snapshots and digests."""

MAX_PASSED_OVER = 20
"""Items at most that an event is said to have passed over: those nearest above the one acted on."""

NO_ROW = -1
"""The row that stands for "nothing here": padding in histories and lists."""


# --- what happened: entries of the events log ---------------------------------------------------


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="entry", tag="event"):
    """Something a user did, as the client reported it.

    ``timestamp`` is the client's clock in seconds; the log adds the received
    and the stream time. ``source`` scopes ``event_id``: two sources may use the
    same id for different events. ``imported`` events were read from a file, so
    that their times may be old, and coarse. ``passed_over`` isn't the client's: the
    server fills in the items that its served list showed above the one acted on.
    """

    event_id: str
    type: str
    user_id: str
    timestamp: float
    item_id: str | None = None
    value: float | None = None
    session_id: str | None = None
    recommendation_id: str | None = None
    position: int | None = None
    scenario: str | None = None
    surface: str | None = None
    context: dict[str, Any] | None = None
    anonymous: bool = False
    source: str = ""
    imported: bool = False
    passed_over: tuple[str, ...] = ()


class Item(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="entry", tag="item"):
    """An item of the catalogue as it is from now on; the newest one counts."""

    item_id: str
    title: str | None = None
    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    price: float | None = None
    text: str | None = None
    attributes: dict[str, str | float | bool | list[str]] = msgspec.field(default_factory=dict)
    vectors: dict[str, list[float]] = msgspec.field(default_factory=dict)
    published_at: float | None = None
    available: bool = True


class ItemRemoval(msgspec.Struct, frozen=True, tag_field="entry", tag="item_removal"):
    """The item is gone: it is not served again, and its learned rows are cleared."""

    item_id: str


class User(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="entry", tag="user"):
    """What is known of a user beside events, as it is from now on; the newest one counts."""

    user_id: str
    attributes: dict[str, str | float | bool | list[str]] = msgspec.field(default_factory=dict)


class UserRemoval(msgspec.Struct, frozen=True, tag_field="entry", tag="user_removal"):
    """The user is hidden: attributes and history are cleared, as if nobody had seen them.

    Rows that were learned from the user's events stay, and so do the events in the log, until
    they are erased.
    """

    user_id: str


class Blank(msgspec.Struct, frozen=True, tag_field="entry", tag="blank"):
    """What is left of an entry that was erased: a place in the log, of which no fold learns."""


class Rollback(msgspec.Struct, frozen=True, tag_field="entry", tag="rollback"):
    """From here on it is as if the events from ``first`` to ``through`` had not come.

    The model returns to the version ``to``, the newest kept state of before ``first``; 0
    stands for none. Every fold passes over these events for good; what their offsets
    hold of items and users stays.
    """

    rollback_id: str
    to: int
    first: int
    through: int
    by: str
    why: str


class Resume(msgspec.Struct, frozen=True, tag_field="entry", tag="resume"):
    """Learning that a guard has paused goes on: what comes from here on is usual."""

    by: str
    why: str


class Promotion(msgspec.Struct, frozen=True, tag_field="entry", tag="promotion"):
    """From here on the model is that of a challenger, and learns by its settings.

    ``settings`` are those that differ from the configured ones, by dotted name. A rollback
    that sets this entry aside undoes it.
    """

    promotion_id: str
    challenger: int
    settings: dict[str, Any]
    by: str
    why: str


Entry = Event | Item | ItemRemoval | User | UserRemoval | Blank | Rollback | Resume | Promotion


class Record(msgspec.Struct, frozen=True):
    """An entry with its place in the events log.

    ``stream_time`` of an event is min(timestamp, received_at), made monotone over offsets;
    other entries have that of the newest event before them, 0 before the first:
    decay, sessions and windows run on it, never on the wall clock.
    """

    offset: int
    received_at: float
    stream_time: float
    entry: Entry


class Appended(msgspec.Struct, frozen=True):
    """The log's answer to one appended entry: its offset, and whether it was there already.

    ``older_than`` is set where an event was refused instead, and the offset is 0: its timestamp
    isn't later than that time, and events that old may have been dropped, so that nobody can
    tell whether it was counted already.
    """

    offset: int
    duplicate: bool
    older_than: float | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """Input that was refused: the bytes as they came, the field at fault and why.

    ``source`` is the route that it came in by. The log gives the ``number``, by order.
    """

    received_at: float
    source: str
    body: str
    field: str
    reason: str
    number: int = 0


# --- what a model sees: arrays only --------------------------------------------------------------


@dataclass(slots=True)
class Contexts:
    """What is known of B requests (or of B events, just before each) when they are answered.

    Histories are right-aligned: the newest event is at column L - 1, and empty
    places hold ``NO_ROW``. ``excluded`` lists, in CSR form, the item rows that
    may not be in list b: ``excluded[excluded_starts[b]:excluded_starts[b + 1]]``.
    """

    users: Ints  # (B,), NO_ROW for an anonymous request and for a user that isn't known (yet)
    times: Doubles  # (B,) stream time of the request
    history_items: Ints  # (B, L)
    history_types: Bytes  # (B, L) event type codes
    history_times: Doubles  # (B, L)
    history_cleaned: Flags  # (B, L) events that teach nothing, not by what came after either
    history_lengths: Longs  # (B,) all earlier events of the user, beyond the window too
    session_lengths: Ints  # (B,) events of the running session so far
    excluded_starts: Longs  # (B + 1,)
    excluded: Ints  # (excluded_starts[-1],)

    def __len__(self) -> int:
        return len(self.users)


@dataclass(slots=True)
class Batch:
    """One micro-batch of events as arrays, in log order, each beside its context.

    The context of row b holds every earlier event of that user and nothing of b
    itself. ``targets`` marks the rows that the protocol predicts: they have an
    item and a polarity of 1.
    """

    offsets: Longs  # (B,)
    items: Ints  # (B,), NO_ROW where the event names none
    types: Bytes  # (B,)
    weights: Floats  # (B,) training weight: the type's, 0 for unknown types and where cleaned
    polarities: NDArray[np.int8]  # (B,) 1, 0 or -1
    targets: Flags  # (B,)
    item_events_before: Longs  # (B,) earlier events that named the item
    contexts: Contexts
    end: int  # offset through which the log was read to make this batch

    def __len__(self) -> int:
        return len(self.items)

    @property
    def wanted(self) -> Flags:
        """(B,) which events say that their user wanted their item: those that are counted."""
        wanted: Flags = (self.items != NO_ROW) & (self.polarities > 0) & (self.weights > 0)
        return wanted


@dataclass(slots=True)
class CatalogueChanges:
    """What a micro-batch said of items: descriptions in order, and then removals."""

    described: Ints  # (P,) item rows
    tokens: Ints  # (P, T) distinct token rows of each, NO_ROW past the end
    removed: Ints  # (R,) item rows


@dataclass(slots=True)
class Gone:
    """Rows of which nothing may be left: from now on they may stand for other ids."""

    items: Ints  # (R,) ascending
    users: Ints  # (U,) ascending
    tokens: Ints = field(default_factory=lambda: np.zeros(0, np.int32))  # (V,) ascending


@dataclass(slots=True)
class Labels:
    """N pairs of a history and an item that was shown behind it: what feedback says of them.

    A weight below 0 says that the item was ignored, and how much that counts; one
    above 0 that it was acted on after having been taken for ignored.
    """

    history_items: Ints  # (N, L), as in ``Contexts``
    history_types: Bytes  # (N, L)
    history_gaps: Bytes  # (N, L) buckets of the time to the next event
    items: Ints  # (N,)
    weights: Floats  # (N,)

    def __len__(self) -> int:
        return len(self.items)


class Sourced(Protocol):
    """What an expert said of a batch of contexts, as far as it tells where that comes from."""

    def sources(self, rows: Ints) -> Ints:
        """(B, C) for each given item, the history item that it comes from most, or ``NO_ROW``."""
        ...


@dataclass(slots=True)
class Ranking:
    """B served lists, best first, and what they were made from.

    ``features`` stay with the list until it is trained on: recomputing them
    later would let them see the answer.
    """

    rows: Ints  # (B, C) item rows, NO_ROW past the end of a list
    scores: Floats  # (B, C) mixture scores, -inf past the end
    features: Floats  # (B, C, F)
    expert_rows: dict[str, Ints]  # name -> (B, K), each expert's own list
    opinions: Mapping[str, Sourced] = field(default_factory=dict)  # of experts that know why


# --- what was learned: entries of the updates log ------------------------------------------------


class SettingChange(msgspec.Struct, frozen=True):
    """A setting that the optimizer changed, with the numbers that caused it."""

    offset: int
    name: str
    before: float
    after: float
    because: dict[str, float]


class StreamChange(msgspec.Struct, frozen=True):
    """Where the stream changed course: what of it, by how much, and that in words.

    ``size`` is a population stability index, a ratio of rates, the value in question, the share of
    their running mean that gains are below, or what hits or a loss are of what they were.
    """

    offset: int
    what: str
    size: float
    reason: str


@dataclass(slots=True)
class TableRows:
    """Rows of one table after a change: ``values[i]`` is the new content of row ``rows[i]``."""

    rows: Ints  # (R,)
    values: Floats  # (R, D)


class Held(msgspec.Struct, frozen=True):
    """A micro-batch whose events were counted and not learned from: its end, and why.

    ``guard`` names the guard that tripped, or says ``paused`` where one had before.
    """

    through: int
    guard: str
    reason: str


class Pace(msgspec.Struct, frozen=True):
    """How a micro-batch was learned that didn't get everything: its end, and what it got.

    Every event is counted in any case. Which ones are in a share is decided by
    their offsets, so that a larger share holds the smaller one.
    """

    through: int
    gradient: float  # share of the events that the gradient step learned from
    evaluated: float  # share that was predicted, and whose lists the mixture learned from
    replay: bool  # whether earlier examples were learned again


@dataclass(slots=True)
class Update:
    """What one or more micro-batches taught the model; the only way from trainer to server.

    Rows, tombstones and, where they are in it, dense weights that were trained
    together travel, and are applied, together. ``batch_ends`` records where each micro-batch ended,
    so that a refold cuts the stream where the trainer did; ``held`` those of
    them that were counted but whose gradient step was held back, ``paces`` those
    that got less than everything. ``gradient_through`` is the end of the newest
    micro-batch of which the gradient took what it wanted.
    """

    epoch: int
    sequence: int
    trained_through: int
    batch_ends: tuple[int, ...]
    tables: dict[str, TableRows]
    tombstones: dict[str, Ints]
    dense: dict[str, Floats]
    settings: tuple[SettingChange, ...] = ()
    held: tuple[Held, ...] = ()
    paces: tuple[Pace, ...] = ()
    gradient_through: int = 0


# --- what is said of a model ---------------------------------------------------------------------


class Metric(msgspec.Struct, frozen=True):
    """A mean with its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int


class Metrics(msgspec.Struct, frozen=True):
    """The one form for every number we show: name -> value with its interval.

    ``window`` is ``newest`` or ``all`` of the live version, or ``before`` for the one whose place
    it took.
    """

    window: str
    segment: str
    values: dict[str, Metric]


class Comparison(msgspec.Struct, frozen=True):
    """Two models' gains for the same n events: sums, sums of squares, and that of products."""

    n: int = 0
    challenger: float = 0.0
    live: float = 0.0
    challenger_squares: float = 0.0
    live_squares: float = 0.0
    products: float = 0.0


class Lift(msgspec.Struct, frozen=True):
    """By what share a challenger's gains are above the live model's, over n events of both.

    ``challenger`` and ``live`` are the mean gains, ``value`` is the one over the other less 1.
    The true lift is within ``low`` and ``high`` at all times, but for a probability of 1 %;
    ``None`` stands for an end that isn't known yet.
    """

    n: int
    challenger: float
    live: float
    value: float | None
    low: float | None
    high: float | None


Policy = Literal["better", "not-worse"]

TrialState = Literal["waiting", "running", "promoted", "retired"]


class Proposed(msgspec.Struct, frozen=True):
    """Where the tuner's proposal stands: after which promotion, and in which round and rung."""

    promotion: int
    round: int
    rung: int


class Challenger(msgspec.Struct, frozen=True):
    """Other settings that are to learn in the shadow of the live ones, and when they take over.

    ``settings`` are those that differ from the configured ones, by dotted name. ``better`` asks
    for a lift that is shown to be above ``delta``, ``not-worse`` for one above minus ``delta``.
    It is retired after ``events`` comparisons, by default as many as the settings say. ``canary``
    is the share of the users who get its lists meanwhile.
    """

    number: int
    settings: dict[str, Any]
    policy: Policy
    delta: float
    by: str
    why: str
    created_at: float
    events: int | None = None
    proposed: Proposed | None = None
    canary: float = 0.0

    @property
    def margin(self) -> float:
        return self.delta if self.policy == "better" else -self.delta


class Trial(msgspec.Struct, frozen=True):
    """How a challenger does: what it was compared on, and how that ended, if it did.

    The comparison is with the live model of one ``epoch``; it begins anew with the next one.
    Each event through offset ``compared_through`` counted once. Its lists may be served since
    ``canary_since``, in seconds since 1970.
    """

    state: TrialState = "waiting"
    trained_through: int = 0
    epoch: int = 0
    compared_through: int = 0
    sums: Comparison = Comparison()
    lift: Lift | None = None
    why: str = ""
    ended_at: float | None = None
    canary_since: float | None = None


class Canary(msgspec.Struct, frozen=True):
    """The challenger whose lists are served to a share of the users, with its settings.

    Its answers have minus its number as their ``version``.
    """

    number: int
    settings: dict[str, Any]
    share: float


class Before(msgspec.Struct, frozen=True):
    """The version whose place a challenger took, and how good its lists were at last.

    ``metrics`` are of the newest predictions up to offset ``through``, in the window ``before``.
    """

    version: int
    through: int
    metrics: list[Metrics]


class Lineage(msgspec.Struct, frozen=True):
    """Where a state's settings come from: the newest promotion behind it, by its offset.

    ``settings`` are laid over the configured ones, by dotted name. A state that no challenger
    was promoted to has none, a ``promotion`` of 0, and no version ``before`` it.
    """

    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    promotion: int = 0
    challenger: int | None = None
    before: Before | None = None


class Version(msgspec.Struct, frozen=True):
    """A kept state of the model: what it has learned, where it is, whether it is live.

    ``kept`` ones were live and can be returned to, the snapshots of ``dropped`` ones are gone,
    ``rolled_back`` ones learned from what was set aside.
    ``version`` is what answers call it: states that are learned by the same settings share it.
    ``metrics`` are of the newest predictions then.
    """

    number: int
    epoch: int
    snapshot: str
    state: Literal["live", "rolled_back", "kept", "dropped"]
    metrics: dict[str, Metric] = msgspec.field(default_factory=dict)
    offset: int = 0
    created_at: float = 0.0
    version: int = 1
    lineage: Lineage = msgspec.field(default_factory=Lineage)


# --- what is said of a running system ------------------------------------------------------------


class ClickThrough(msgspec.Struct, frozen=True):
    """How often what a version showed was acted on.

    ``clicked`` lists are those that an event named (``by_id``) and those of whose items
    their user acted on one soon after, naming no list (``by_window``).
    """

    version: int
    served: int
    clicked: int
    by_id: int
    by_window: int
    rate: Metric


class Status(msgspec.Struct, frozen=True):
    """Where the server stands. Offsets are places in the events log.

    The log holds the entries after ``start``, through ``end``.
    ``lag`` counts the entries of the log that this process hasn't folded,
    ``training_lag`` those that the model hasn't learned; ``lag_seconds`` and
    ``training_lag_seconds`` are how long ago the oldest of them came. Through
    ``gradient_through`` the gradient took what it wanted of them: all, or under load a sample.
    ``trainer`` is the newest report that came with an update, without its metrics.
    """

    role: str
    software: str
    uptime_seconds: float
    ready: bool
    version: int
    epoch: int
    sequence: int
    start: int
    end: int
    offset: int
    lag: int
    trained_through: int
    gradient_through: int
    training_lag: int
    lag_seconds: float
    training_lag_seconds: float
    dead_letters: int
    clicks: list[ClickThrough]
    trainer: dict[str, Any]


# --- what a client gets --------------------------------------------------------------------------


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why an item is in the list.

    ``contribution`` is the expert's exact Shapley share of the item's score;
    ``because_of`` names the history item that the expert took it from.
    """

    expert: str
    contribution: float
    because_of: str | None = None


class RecommendedItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    item_id: str
    score: float
    reasons: list[Reason]
    title: str | None = None


class Recommendations(msgspec.Struct, frozen=True):
    """An answer, with the model that gave it: one (version, sequence), never two."""

    recommendation_id: str
    version: int
    sequence: int
    trained_through: int
    items: list[RecommendedItem]


class SimilarItems(msgspec.Struct, frozen=True):
    """What goes with an item, best first, by one (version, sequence).

    A score is from 0 to 1, and the contributions of its reasons add up to it.
    """

    item_id: str
    version: int
    sequence: int
    trained_through: int
    items: list[RecommendedItem]


class SimilarUser(msgspec.Struct, frozen=True):
    """``similarity`` is the cosine of the two users' vectors."""

    user_id: str
    similarity: float


class SimilarUsers(msgspec.Struct, frozen=True):
    """Who is like a user, most similar first, by one (version, sequence)."""

    user_id: str
    version: int
    sequence: int
    trained_through: int
    users: list[SimilarUser]


class HistoryEvent(msgspec.Struct, frozen=True):
    """An event of a user's history; ``weight`` is its share w_t of the user's taste."""

    item_id: str
    title: str | None
    type: str
    time: float
    weight: float


class FeatureEffect(msgspec.Struct, frozen=True):
    """What a feature does to the score of one item of a list.

    ``effect`` is the score less the score that the item would have if this feature
    were the mean of the list's; ``value`` is the feature as the mixture sees it.
    """

    feature: str
    value: float
    effect: float


class ExplainedItem(msgspec.Struct, frozen=True):
    """An item of a list with every expert's share and the features that count, largest first."""

    item_id: str
    title: str | None
    score: float
    reasons: list[Reason]
    features: list[FeatureEffect]


class Explanation(msgspec.Struct, frozen=True):
    """What a user's list is made from, by one (version, sequence).

    ``events`` counts all events that the history ever held; ``history`` is the
    window of it that the experts see, newest first, its weights adding up to 1.
    An unknown user has none.
    """

    user_id: str
    version: int
    sequence: int
    trained_through: int
    offset: int
    events: int
    history: list[HistoryEvent]
    items: list[ExplainedItem]


class ServedList(msgspec.Struct, frozen=True):
    """What was shown for one request, in order of position; kept so that clicks can be joined."""

    recommendation_id: str
    user_id: str | None
    version: int
    sequence: int
    served_at: float
    items: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(slots=True)
class Request:
    """What a client asks for: a known user, or the items of an anonymous session, newest last."""

    n: int
    user_id: str | None = None
    session_items: tuple[str, ...] = ()
    exclude: frozenset[str] = field(default_factory=frozenset)
