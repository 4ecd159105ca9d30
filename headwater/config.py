"""Settings: ``headwater.toml`` < ``HEADWATER_*`` environment < flags.

Every setting is here, with its default and where the number came from. A
``Config`` is frozen; unknown keys, nested ones too, and numbers that aren't
finite are errors that name the key.

The string under a field is its documentation: the annotated file that
``headwater init`` writes and ``docs/configuration.md`` are made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from headwater import _config_template
from headwater._config_layers import Layer, explain, merge, read_environment, read_toml
from headwater.errors import ConfigError

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

ENV_PREFIX = "HEADWATER_"

RESERVED_VARIABLES = {
    "HEADWATER_STREAMS": "folder of the streams that benchmarks read",
    "HEADWATER_URL": "address of a running system, for the commands that talk to one",
}
"""Environment variables of that prefix which aren't settings."""

SECRETS = frozenset({"serve.api_key", "deploy.webhook_url"})
"""Settings whose values are never shown."""


class _NoBooleanForANumber(BaseModel):
    """pydantic reads true as 1; strictly, it would refuse an environment variable's text too."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {kind, *get_args(kind)} & {int, float}:
            raise ValueError("input should be a number, not true or false")
        return value


class _Section(_NoBooleanForANumber):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


class EventType(_Section):
    """What one type of event says about user and item."""

    weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    """How much one such event teaches, against a view."""
    polarity: Literal[-1, 0, 1] = 1
    """1: wanted; -1: not wanted (learned from, never a target); 0: says neither."""
    repeats: bool = True
    """Whether an item may be recommended again after such an event of the same user."""
    keep: float = Field(default=1.0, gt=0, le=1)
    """Share of such events that gradient steps learn from. A kept one weighs 1 / ``keep``, so
    that the same is learned from fewer; all are counted, remembered and measured."""

    @field_validator("polarity", mode="before")
    @classmethod
    def _from_environment(cls, value: Any) -> Any:
        # An environment variable is text, and a Literal takes none for a number.
        return int(value) if value in ("-1", "0", "1") else value


DEFAULT_EVENT_TYPES: dict[str, EventType] = {
    "view": EventType(),
    "click": EventType(),
    "play": EventType(),
    "dwell": EventType(),
    "search": EventType(weight=0.0, polarity=0),
    "impression": EventType(weight=0.0, polarity=0),
    "skip": EventType(weight=0.5, polarity=-1),
    "like": EventType(weight=2.0),
    "bookmark": EventType(weight=2.0),
    "favourite": EventType(weight=2.0),
    "cart": EventType(weight=3.0),
    "purchase": EventType(weight=5.0),
    "rating": EventType(repeats=False),
    "dislike": EventType(weight=2.0, polarity=-1),
    "return": EventType(weight=2.0, polarity=-1),
    "cancel": EventType(weight=2.0, polarity=-1),
    "adjust": EventType(weight=0.0, polarity=0),
    "survey": EventType(weight=0.0, polarity=0),
}


class Cleaning(_Section):
    max_age_days: float = Field(default=7.0, ge=0)
    """``impossible_time``: a live event that is this far behind the newest one teaches nothing; 0
    switches the rule off. A week is a guess at what a client that was offline still holds."""
    duplicate_seconds: float = Field(default=10.0, ge=0)
    """``duplicate``: the same user, item and type again this soon after the last time teaches
    nothing; 0 switches the rule off. In the first half of a news stream (informfully), 95 % of
    the repeated ratings of an article came within 3 seconds."""
    burst_events: int = Field(default=100, ge=0)
    """``burst``: while a user has more events than this within ``burst_seconds``, they teach
    nothing; 0 switches the rule off. Ten a second is faster than people are, though not faster
    than a wholesaler's order that is sent at once."""
    burst_seconds: float = Field(default=10.0, gt=0)
    """Time constant by which the count of a user's events decays."""
    hammered_events: int = Field(default=20, ge=0)
    """``hammered``: while one user has more events than this with one item within
    ``hammered_hours``, they teach nothing; 0 switches the rule off. A first guess."""
    hammered_hours: float = Field(default=24.0, gt=0)
    """Time constant by which that count decays."""
    influence_days: float = Field(default=7.0, gt=0)
    """Time constant of the two rules below: the window within which a user, or a few of them with
    one item, can teach only so much."""
    influence_events: int = Field(default=2_000, ge=0)
    """``overactive``: while a user has more events than this within the window, they teach
    nothing; 0 switches the rule off. A first guess, that nobody reaches in five public streams."""
    pushed_times: float = Field(default=4.0, ge=0)
    """``pushed``: what users do with an item again within the window teaches up to so many times
    what is usual for as many users; 0 switches the rule off. On the first halves of five public
    streams, taken as live, at most 0.18 % of the events are over it."""
    flooded_share: float = Field(default=0.3, ge=0, le=1)
    """``flooded``: of the newest 100 events that taught, one item may have this share, or half more
    than what it usually has; what goes beyond teaches nothing. 0 switches the rule off. Of six
    public streams, taken as live, it finds at most 0.37 % of the events: a film's first hours, an
    article that few readers rated again and again."""
    remembered: int = Field(default=32_768, ge=8, le=10_000_000)
    """Users, and pairs of user and item, that each rule remembers; the quietest make place."""


class Log(_Section):
    keep_days: float | None = Field(default=None, gt=0, examples=[365.0])
    """Days of stream time that the events log keeps; older entries are dropped, as far as they
    are older than the oldest snapshot kept. What was learned from them stays."""
    keep_megabytes: float | None = Field(default=None, gt=0, examples=[10_000.0])
    """Size that the events log is kept to, likewise; the last ten minutes always stay. Both may
    be set: what one of them doesn't keep is dropped."""


class Preprocess(_Section):
    history_length: int = Field(default=50, ge=1, le=1000)
    """Events of a user's history that are kept in memory and seen by the experts."""
    session_gap_minutes: float = Field(default=30.0, gt=0)
    """A longer pause starts a new session."""
    consumed_per_user: int = Field(default=5_000, ge=1)
    """Used-up items that are kept per user, the newest: an older one may be recommended again.
    12 bytes each; hardly anyone has as many."""
    max_users: int = Field(default=1_000_000, ge=1)
    """Users that are remembered: a sweep forgets those whose last event is longest ago. What is
    new since the last sweep comes on top. A million take 0.8 to 1.6 GB in each role."""
    max_items: int = Field(default=1_000_000, ge=1)
    """Items that are remembered, likewise: by the last event that named them, or their last put.
    A million take 2.2 to 4.4 GB in each role."""
    user_idle_days: float | None = Field(default=None, gt=0, examples=[365.0])
    """Users without an event for so long are forgotten, those that were set excepted; by default
    none is by time alone."""
    item_idle_days: float | None = Field(default=None, gt=0, examples=[180.0])
    """Items without an event for so long, likewise, those that the catalogue lists or holds back
    excepted."""
    admit_users_after: int = Field(default=1, ge=1, le=100)
    """Events after which a user is remembered; until then each counts as an unknown user's. 1:
    from the first on."""
    admit_items_after: int = Field(default=1, ge=1, le=100)
    """Events after which an item is remembered; until then each counts as one without an item. 1:
    from the first on. An item that is put is remembered at once."""
    sweep_events: int = Field(default=10_000, ge=1)
    """Entries of the log between two sweeps, which forget what is idle or too much. A small
    number costs time, a large one memory: a sweep looks at everything that is remembered."""
    cleaning: Cleaning = Cleaning()
    """Which live events teach nothing. They stay in histories and metrics."""


class Popularity(_Section):
    half_lives_hours: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0, 6.0, 24.0, 96.0, 384.0, 2880.0), min_length=1
    )
    """Half-lives of the decayed counts, an hour to four months: no single one is right for two
    streams, so several are kept and the mixture chooses."""


class Transitions(_Section):
    width: int = Field(default=64, ge=4, le=1024)
    """Successors kept per item; the weakest makes place for a new one."""
    window: int = Field(default=10, ge=1, le=100)
    """Earlier events that are joined to a new one, with weight 1 / distance."""
    half_life_days: float = Field(default=60.0, gt=0)
    """Half-life of the counts."""


class Neighbours(_Section):
    width: int = Field(default=64, ge=4, le=1024)
    """Neighbours kept per item; the weakest makes place for a new one."""
    window: int = Field(default=20, ge=1, le=100)
    """Earlier events that a new one is joined to, with weight 1 / sqrt(distance)."""
    half_life_days: float = Field(default=60.0, gt=0)
    """Time in which what was learned loses half of its weight."""


class Precedents(_Section):
    events: int = Field(default=1_000_000, ge=100)
    """Newest events of everybody that are kept, 32 bytes each."""
    window: int = Field(default=10, ge=1, le=100)
    """Newest events of a history whose precedents are looked up."""
    occurrences: int = Field(default=100, ge=1, le=10_000)
    """Newest events on an item that count as its precedents."""
    reach: int = Field(default=8, ge=1, le=100)
    """Events after, and before, a precedent that are proposed."""


class Content(_Section):
    window: int = Field(default=20, ge=1, le=100)
    """Newest events of a history that make up what the user goes for."""
    tokens: int = Field(default=16, ge=1, le=256)
    """Categories, tags, bands of prices, attributes, parts of vectors and title words kept per
    item."""
    postings: int = Field(default=128, ge=1, le=100_000)
    """Newest items kept per token, from which candidates come."""


class Sequence(_Section):
    dim: int = Field(default=64, ge=4, le=1024)
    """Length of an item's, and of a user's, vector."""
    layers: int = Field(default=1, ge=0, le=16)
    """Transformer blocks; 0 leaves a weighted sum of the history."""
    heads: int = Field(default=2, ge=1, le=16)
    """Attention heads of a block; they share ``dim`` among them."""
    learning_rate: float = Field(default=0.001, gt=0, le=1)
    """Adam's, for the dense weights."""
    row_learning_rate: float = Field(default=0.05, gt=0, le=10)
    """Row-wise Adagrad's, for the rows of items and of their tokens."""
    negatives: int = Field(default=1024, ge=1)
    """Uniform negatives of one step, shared by its examples, beside the in-batch ones."""
    exact_items: int = Field(default=10_000, ge=1)
    """Items up to which every one is scored for every request. Of more, the best of a first look
    in bytes are."""
    hard_negatives: int = Field(default=0, ge=0)
    """Negatives of one step that the model itself proposes, as it ranks them high (IRGAN; Wang et
    al., SIGIR 2017), corrected like the others; they matter where there are more items than
    ``negatives``."""
    earlier_positions: int = Field(default=2, ge=0)
    """Earlier positions of a history that are predicted beside the last one, at half weight."""
    replay: float = Field(default=1.0, ge=0, le=10)
    """Replayed examples per new one."""
    replay_buffer: int = Field(default=20_000, ge=0)
    """Newest examples that replay draws from."""
    replay_cap: int = Field(default=8, ge=0)
    """Replays of one event at most: sparse ids overfit at repeated passes (arXiv 2209.06053)."""

    @model_validator(mode="after")
    def _heads_share_the_vector(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


class Mixture(_Section):
    candidates: int = Field(default=50, ge=1, le=1000)
    """Items that each expert proposes to the union."""
    hidden: int = Field(default=48, ge=1)
    """Width of the two hidden layers."""
    learning_rate: float = Field(default=0.005, gt=0, le=1)
    """Adam's; Muon's, of the hidden layers, is 20 times that at first and falls to 4 times."""
    replay: float = Field(default=2.0, ge=0, le=10)
    """Replayed lists per new one."""
    replay_buffer: int = Field(default=4_000, ge=0)
    """Newest lists that replay draws from."""
    members: int = Field(default=1, ge=1, le=16)
    """Networks whose scores are averaged (EasyEnsemble; Liu, Wu and Zhou, 2009), each of which
    keeps its own draw of what ``keep`` and ``imbalance.item_share`` thin. The mixture's part
    of ranking, learning and updates costs as many times."""


class Imbalance(_Section):
    by: Literal["weight", "resample"] = "weight"
    """What the weight of an example is in a gradient step: a factor on its loss, or how often
    it is drawn, out of as many draws as there are examples."""
    rare_items: float = Field(default=0.0, ge=0, le=2)
    """Replay draws an example in proportion to (events of its item) to the power of minus this:
    0 draws all alike."""
    rare_types: float = Field(default=0.0, ge=0, le=2)
    """Likewise with its event type's share of the replay buffer."""
    rare_at_most: float = Field(default=10.0, ge=1, le=1000)
    """Times that the rarest example may be as likely as the commonest. A first guess: no other
    value was tried."""
    item_share: float = Field(default=1.0, gt=0, le=1)
    """Examples of an item with a larger share of the events are kept with a probability of
    √(``item_share`` / share), and the loss is corrected by it; 1 keeps all."""


class Train(_Section):
    batch_events: int = Field(default=100, ge=1, le=10_000)
    """Most events of a micro-batch that is learned from in full."""
    batch_milliseconds: float = Field(default=50.0, ge=0)
    """A micro-batch ends at ``batch_events``, or this long after its first event."""
    publish_milliseconds: float = Field(default=100.0, ge=0)
    """Longest that learned rows wait to be published while more events wait than a micro-batch
    takes; else each micro-batch is published at once. An update takes some 4 ms of the trainer's
    processor time and 3 ms of a server's, and 1 ms more of both for each micro-batch in it."""
    publish_dense_milliseconds: float = Field(default=0.0, ge=0)
    """Likewise for the dense weights, which are sent as a whole: 0 sends them with the rows each
    time; where they are larger than the rows, more saves most of an update."""
    pace: Literal["load", "full", "least"] = "load"
    """What a micro-batch gets beside being counted, as every event is. ``full``: everything.
    ``load``: where more than ``batch_events`` wait, a micro-batch takes more of them, at most
    ``batch_events`` / ``least_gradient``, and the gradient step still learns from about
    ``batch_events``, drawn by offset; fewer are predicted, and where the most wait nothing is
    replayed. ``least``: always as with the most waiting. ``headwater replay`` is never behind, so
    there ``load`` is ``full``. What was imported waits for nobody: its gradient is ``full``."""
    least_gradient: float = Field(default=0.2, ge=0.2, le=1)
    """Least share of the events that the gradient learns from; 1 never takes less than all, and
    predicts all."""
    least_evaluated: float = Field(default=0.1, ge=0.05, le=1)
    """Least share that is predicted, which is what metrics and the mixture learn from. On the
    first 50,000 ratings of ml-100k 0.05 cost 5.2 % of NDCG@10 and 0.1 1.9 %, against the same
    micro-batches learned in full."""
    history_in_full: int = Field(default=10_000, ge=0)
    """Entries of the log through which every imported event is predicted. Of later ones, the share
    is this number by theirs, and at least ``least_evaluated``; the gradient takes all of them.
    With 5,000, NDCG@10 of what was live after 50,000 ratings of ml-100k was .1263 instead of .1259,
    and after 30,000 tweets of films .2179 instead of .2186."""


class Backfill(_Section):
    passes: int = Field(default=60, ge=1, le=10_000)
    """Most passes of the sequence expert over the history."""
    minutes: float = Field(default=45.0, gt=0)
    """No pass begins that wouldn't end within this time, counted from the first one."""
    hold_out: float = Field(default=0.1, gt=0, lt=1)
    """Newest share of the events that isn't gone over, but says when to stop. It is then learned
    as a stream is. Leave-one-out has a hold-out of its own."""
    threads: int = Field(default=0, ge=0, le=1024)
    """Of the passes, 0 for one a core. Sums, and so the last bits, depend on it; where the cores
    are busy with something else, 1 is faster than waiting for them at every product."""
    patience: int = Field(default=5, ge=1)
    """Passes end after so many that brought no better NDCG@10 on the hold-out."""
    judged: int = Field(default=20_000, ge=100)
    """Events of the hold-out that are asked, spread evenly over it."""
    candidates: int = Field(default=4_096, ge=1)
    """Items that every event is ranked among; a catalogue of at most so many is taken whole."""
    positions: int = Field(default=1_600, ge=1)
    """Places of a history that are predicted in one step, empty ones among them. On ml-100k 1,600
    were as good in 9 passes as 6,400 in 20."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the transformer's activations that are dropped, as SASRec does on MovieLens-1M; no
    other value was tried."""


class Evaluate(_Section):
    window: int = Field(default=10_000, ge=100)
    """Newest predictions that the running metrics are a mean of."""


class Optimize(_Section):
    every: int = Field(default=2_000, ge=100)
    """Events that could be predicted between two looks at the losses."""
    learning_rate_factor: float = Field(default=1.5, gt=1, le=10)
    """A learning rate is raised or lowered by this factor at a time."""
    learning_rate_span: float = Field(default=4.0, ge=1, le=100)
    """The optimizer keeps a learning rate between its configured value and this many times it."""


class Deploy(_Section):
    snapshot_events: int = Field(default=20_000, ge=1)
    """Events between two snapshots."""
    snapshots_kept: int = Field(default=3, ge=1)
    """Newest snapshots that are kept; older ones, and the updates before them, are deleted."""
    row_norm_limit: float = Field(default=100.0, gt=0)
    """An update with a longer row doesn't go live."""
    dense_limit: float = Field(default=100.0, gt=0)
    """Likewise for the largest dense weight."""
    resume_batches: int = Field(default=10, ge=1)
    """After a guard has tripped, micro-batches in a row that must be sane before learning by
    gradient goes on: a second's at full speed. A first guess."""
    automatic_rollback: bool = True
    """Whether the alarm, lists that are worse than they were and worse than what is popular,
    returns the model to the newest version of before. At most once in ``evaluate.window`` events;
    when it rings again, that is reported only."""
    webhook_url: str | None = Field(
        default=None, pattern=r"^https?://", repr=False, examples=["https://example.org/alerts"]
    )
    """Is sent a JSON object by POST with each alert: a guard that trips, learning that goes on, a
    rollback, a promotion, a change of the stream, a damaged snapshot. Nothing waits for its
    answer. A secret, like a key: who knows such an address may often post there."""


class Challengers(_Section):
    events: int = Field(default=50_000, ge=1_000)
    """Events that a challenger is compared with the live model on before it is retired for want
    of evidence. A lift of 5 % took 5,200 in the median of 200 comparisons (benchmarks/safety)."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Share of one core's time that the challenger may take; it runs at a low priority besides. A
    first guess."""
    tune: bool = False
    """Whether challengers with settings around the live ones are proposed, one after the other,
    while no other runs (docs/decisions/0022-challengers.md)."""


class Recommend(_Section):
    repeats: bool | None = Field(default=None, examples=[True])
    """Overrides every event type's ``repeats``; by default each type says for itself."""
    catalogue: Literal["seen", "all"] = "all"
    """``all``: an item is recommended as soon as it is set, or an event names it; ``seen``: once
    an event has named it. ``headwater replay`` takes ``seen`` where neither is said, as its
    protocol does."""
    max_n: int = Field(default=100, ge=1, le=1000)
    """Longest list that a request may ask for."""
    active_users: int = Field(default=250, ge=1, le=100_000)
    """Users with the newest events, among whom those similar to a user are looked for. They are
    encoded together, while no other request is answered."""
    wait_seconds: float = Field(default=2.0, ge=0, le=60)
    """Longest that ``min_offset`` makes a request wait."""


class Feedback(_Section):
    attribution_minutes: float = Field(default=60.0, gt=0)
    """An event that names no list counts for one that showed its item to its user at most this
    long before."""
    ignore_after_minutes: float = Field(default=30.0, gt=0)
    """An impression that its user hasn't acted on for this long, in stream time, was ignored; as
    long as a visit's longest pause."""
    negative_weight: float = Field(default=0.1, ge=0, le=1)
    """What one ignored item teaches, against a view: an impression may not even have been seen, and
    an item that is acted on in one of twenty still does well. 0 learns nothing from impressions."""
    negatives_per_user: int = Field(default=20, ge=0)
    """Impressions of a user that are taken up in an hour of stream time, so that no user alone can
    drag an item down."""
    impressions: int = Field(default=20_000, ge=1)
    """Impressions that are remembered: until they are taken for ignored, and afterwards to take
    that back. While all of them wait, new ones aren't taken up."""


class Serve(_Section):
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    api_key: str | None = Field(
        default=None, min_length=16, repr=False, examples=["a long random text"]
    )
    """Needed to listen beyond the loopback address; sent as ``Authorization: Bearer``."""
    max_body_bytes: int = Field(default=8_000_000, ge=1_000)
    """Largest body of a request; a larger one is answered 413."""
    max_events_per_request: int = Field(default=10_000, ge=1)
    """Most events of one request; more are answered 413."""
    max_queue: int = Field(default=1_000, ge=1)
    """Requests waiting for the model thread; more are shed with 503."""
    max_wait_milliseconds: float = Field(default=50.0, gt=0)
    """Longest that a request should wait for the model thread: what would wait longer, by what
    those before it took each, is shed with 503 at once, except that a handful may always wait.
    Where one in fifty of the lists takes more than a third of it in all, fewer lists and events
    are let in, until it no longer does."""
    max_backlog: int = Field(default=20_000, ge=1)
    """Events, items and users taken in that are not yet both committed and part of what answers;
    more are shed with 503. A recommendation waits until all of them are: a quarter of a second."""
    user_vectors_cached: int = Field(default=10_000, ge=0)
    """Encoded users kept until the model changes, for those who ask again; about 11 MB at the
    default ``history_length`` and ``dim``. 0 keeps none."""


class Config(_NoBooleanForANumber, BaseSettings):
    """All settings, frozen. Make one with :func:`load`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    # What every generator of random numbers takes, with a little added.
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """All randomness comes from this number and the offset in the log."""
    events: dict[Annotated[str, Field(min_length=1, max_length=64)], EventType] = Field(
        default_factory=dict
    )
    """Event types beside the built-in ones, or other values for those."""
    log: Log = Log()
    """How much of the events log is kept; everything, by default."""
    preprocess: Preprocess = Preprocess()
    """Histories and sessions."""
    popularity: Popularity = Popularity()
    """The ``popularity`` expert: decayed counts."""
    transitions: Transitions = Transitions()
    """The ``transitions`` expert: what follows what."""
    neighbours: Neighbours = Neighbours()
    """The ``neighbours`` expert: what is used by the same people."""
    precedents: Precedents = Precedents()
    """The ``precedents`` expert: what others did in the same place."""
    content: Content = Content()
    """The ``content`` expert: what items are about."""
    sequence: Sequence = Sequence()
    """The ``sequence`` expert: a causal transformer over the history."""
    mixture: Mixture = Mixture()
    """How the experts are combined."""
    imbalance: Imbalance = Imbalance()
    """How often what is rare, and what is frequent, is learned from. Nothing is changed by
    default, for no setting was better on all streams (docs/decisions/0009-imbalance.md)."""
    train: Train = Train()
    """Micro-batches and publishing."""
    backfill: Backfill = Backfill()
    """``headwater import --backfill``: a history that is learned in several passes."""
    evaluate: Evaluate = Evaluate()
    """Test-then-train metrics."""
    optimize: Optimize = Optimize()
    """What the metrics change."""
    deploy: Deploy = Deploy()
    """Snapshots and guards."""
    challengers: Challengers = Challengers()
    """Other settings that learn in the shadow of the live ones."""
    recommend: Recommend = Recommend()
    """What is served."""
    feedback: Feedback = Feedback()
    """What is made of what was shown."""
    serve: Serve = Serve()
    """The HTTP server."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` lays file, environment and flags over one another, and knows who set which key.
        return (init_settings,)

    @field_validator("events", mode="before")
    @classmethod
    def _over_the_built_in(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            name: {**DEFAULT_EVENT_TYPES[name].model_dump(), **settings}
            if name in DEFAULT_EVENT_TYPES and isinstance(settings, Mapping)
            else settings
            for name, settings in value.items()
        }

    @property
    def event_types(self) -> dict[str, EventType]:
        """The built-in event types with the configured ones over them."""
        return {**DEFAULT_EVENT_TYPES, **self.events}


def load(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """The effective settings.

    Args:
        path: a TOML file; ``None`` reads ``headwater.toml`` in the working folder if there is one.
        overrides: nested values that win over file and environment (the flags).

    Raises:
        ConfigError: names every key at fault, who set it, and what would be right.
    """
    file = path if path is not None else Path("headwater.toml")
    if path is not None and not path.is_file():
        raise ConfigError(f"--config: there is no file {path}")
    layers = [
        *([read_toml(file)] if file.is_file() else []),
        *read_environment(Config, ENV_PREFIX, RESERVED_VARIABLES),
        Layer("by a flag", overrides or {}),
    ]
    try:
        return Config(**merge(layers))
    except ValidationError as error:
        raise ConfigError(explain(error, Config, layers, SECRETS)) from None


LEARNING = (
    *("preprocess", "popularity", "transitions", "neighbours", "precedents", "content"),
    *("sequence", "mixture", "imbalance", "optimize"),
)
"""Sections that decide how is learned: what a challenger may set, and a promotion brings."""


def overridden(config: Config, settings: Mapping[str, Any]) -> Config:
    """The settings with others over them.

    Args:
        settings: values by dotted name, of ``LEARNING`` sections.

    Raises:
        ConfigError: names each setting that isn't one of these, or whose value isn't allowed.
    """
    foreign = [key for key in settings if key.split(".")[0] not in LEARNING]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)}: a challenger differs in how it learns, and nothing else; "
            f"it may set what is in {', '.join(LEARNING)}"
        )
    if not settings:
        return config
    layers = [Layer("in the settings", config.model_dump())]
    for key, value in settings.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        layers.append(Layer("for a challenger", value))
    try:
        return Config(**merge(layers))
    except ValidationError as error:
        raise ConfigError(explain(error, Config, layers, SECRETS)) from None


def values_of(config: Config, keys: Iterable[str]) -> dict[str, Any]:
    """What the settings of these dotted names are, as plain JSON values."""
    found = {}
    for key in keys:
        value: Any = config.model_dump(mode="json")
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found


def effective(config: Config) -> dict[str, Any]:
    """Every setting as plain JSON values, built-in event types too; secrets are starred out."""
    values = config.model_dump(mode="json")
    values["events"] = {
        name: kind.model_dump(mode="json") for name, kind in config.event_types.items()
    }
    for secret in SECRETS:
        section, key = secret.split(".")
        if values[section][key] is not None:
            values[section][key] = "********"
    return values


def annotated_toml() -> str:
    """The file that ``headwater init`` writes: every key, commented out, at its default."""
    return _config_template.annotated_toml(Config, {"events": DEFAULT_EVENT_TYPES})


def configuration_markdown() -> str:
    """The text of ``docs/configuration.md``."""
    return _config_template.configuration_markdown(
        Config, {"events": DEFAULT_EVENT_TYPES}, RESERVED_VARIABLES
    )
