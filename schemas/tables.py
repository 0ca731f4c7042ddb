"""One declared schema per table: the contract, the documentation and the DDL of the warehouse.

Facts (prompts, completions, rewards, verdicts, checkpoints, usage) are immutable and shared by every build of a
warehouse. Derived rows carry the ``config_id`` of the build that made them. ``KEYS`` names the columns that make a row
unique; the lake enforces them when it appends.
"""

from schemas.extras import absent

with absent("sqlalchemy"):  # with which dataframely writes to other databases, and which takes a third of a second
    import dataframely as dy


def _one_of(*values: str, primary_key: bool = False) -> dy.String:
    """Return a text column that is limited to some values; it is no enum, so SQL needs no types of its own."""
    return dy.String(regex=f"^({'|'.join(values)})$", primary_key=primary_key)


class Prompts(dy.Schema):
    """Conversations to be answered: read from a source, or translated from a parent.

    ``source_row`` is the id of the row that the prompt was first read from, or the row's position if the source has no
    id column. ``script_share`` is the share of letters that are in the language's script; null if there are too few
    letters, and in rows written before the column was added.
    """

    prompt_id = dy.String(primary_key=True)
    language = dy.String()
    messages = dy.List(dy.Struct({"role": dy.String(), "content": dy.String()}), min_length=1)
    source = dy.String()
    source_row = dy.String(nullable=True)
    parent_id = dy.String(nullable=True)
    root_id = dy.String()
    translator = dy.String(nullable=True)
    settings_id = dy.String(nullable=True)
    split = _one_of("train", "eval")
    detected_language = dy.String(nullable=True)
    language_score = dy.Float64(nullable=True)
    script_share = dy.Float64(nullable=True)


class _Known(dy.Schema):
    """A completion by its id."""

    completion_id = dy.String(primary_key=True)


class _Asked(dy.Schema):
    """To what, by whom and how a completion was made."""

    prompt_id = dy.String()
    language = dy.String()
    model = dy.String()
    model_fingerprint = dy.String()
    settings_id = dy.String()
    origin = _one_of("in_language", "translated", "on_policy", "recorded")
    translator = dy.String(nullable=True)
    parent_id = dy.String(nullable=True)
    round = dy.Int32()
    sample_index = dy.Int32()


class _Written(dy.Schema):
    """What a model wrote."""

    text = dy.String()
    reasoning = dy.String(nullable=True)


class _Measured(dy.Schema):
    """What is counted and measured of a completion."""

    finish_reason = dy.String(nullable=True)
    num_prompt_tokens = dy.Int64()
    num_completion_tokens = dy.Int64()
    num_chars = dy.Int64()
    repetition = dy.Float64()
    detected_language = dy.String(nullable=True)
    language_score = dy.Float64(nullable=True)
    script_share = dy.Float64(nullable=True)


class Completions(_Known, _Asked, _Written, _Measured):
    """Answers: sampled from a model, recorded elsewhere, or translated from a parent.

    ``model`` is the model that wrote the answer. ``script_share`` is defined as in prompts.
    """


class Rewards(_Known):
    """Raw rewards, before any sigmoid."""

    reward_fingerprint = dy.String(primary_key=True)
    reward = dy.Float64()


class _Indexed(dy.Schema):
    """The place of a reward in its table."""

    reward_row = dy.Int64()


class RewardIndex(Rewards, _Indexed, _Asked, _Measured):
    """Rewards beside what their completions are, without the texts: made of facts alone, and of no build.

    Queries over many rows read it instead of joining the two tables. ``reward_row`` is the row's id in ``rewards``,
    which DuckLake never changes: the index covers all rewards up to the highest one; later ones are still joined by
    queries.
    """


class Verdicts(dy.Schema):
    """A judge's verdicts on pairs of completions of one prompt.

    ``completion_a`` is the one with the smaller id, so that a pair has the same row whoever compares the two. ``order``
    says which one the judge saw first; ``verdict`` refers to a and b regardless. ``text`` is what an LLM judge wrote.
    """

    completion_a = dy.String(primary_key=True)
    completion_b = dy.String(primary_key=True)
    judge_fingerprint = dy.String(primary_key=True)
    order = _one_of("ab", "ba", primary_key=True)
    prompt_id = dy.String()
    language = dy.String()
    verdict = _one_of("A>>B", "A>B", "A=B", "B>A", "B>>A", "unreadable")
    text = dy.String(nullable=True)


class Rejections(dy.Schema):
    """Every row that was dropped, with its reason.

    ``row_id`` is the id of what was dropped: a source row, a request, a completion or a pair. Failures of an engine
    are facts and have an empty ``config_id``; rows that a build's settings rejected have that build's.
    """

    config_id = dy.String(primary_key=True)
    row_id = dy.String(primary_key=True)
    stage = dy.String(primary_key=True)
    settings_id = dy.String(primary_key=True)
    reason = dy.String()
    detail = dy.String()
    language = dy.String(nullable=True)
    model = dy.String(nullable=True)


class BuildPrompts(dy.Schema):
    """The source prompts of a build. Its translated prompts are not listed: they are found by their ``parent_id``."""

    config_id = dy.String(primary_key=True)
    prompt_id = dy.String(primary_key=True)


class SourceRows(dy.Schema):
    """Every row of a build's sources, kept or dropped, so that recorded answers can refer to any of them.

    ``row`` is its position in the source. ``key`` is the row's id, as a JSON list of the id columns' values as text, or
    the position as JSON text if the source has no id column; null if the id is null. ``prompt_id`` identifies the row's
    prompt and ``text_id`` its text if it is a single turn; otherwise null. Rows beyond a source's limit are not
    ``is_read``. A row that was deleted from its source stays here as long as its prompt is in the build.
    """

    config_id = dy.String(primary_key=True)
    row_id = dy.String(primary_key=True)
    source = dy.String()
    row = dy.String()
    key = dy.String(nullable=True)
    language = dy.String(nullable=True)
    prompt_id = dy.String(nullable=True)
    text_id = dy.String(nullable=True)
    is_read = dy.Bool()


class Reads(dy.Schema):
    """The sources that a build has read completely; ``sources_id`` covers their bytes and the settings of reading."""

    config_id = dy.String(primary_key=True)
    sources_id = dy.String(primary_key=True)


class BuildModels(dy.Schema):
    """The models of a build, each with the identity of its settings."""

    config_id = dy.String(primary_key=True)
    role = _one_of("teacher", "translator", "reward", "judge", "policy", primary_key=True)
    name = dy.String(primary_key=True)
    settings_id = dy.String()
    model_fingerprint = dy.String()
    languages = dy.List(dy.String())
    num_samples = dy.Int32()
    licence = dy.String(nullable=True)


class Selections(dy.Schema):
    """The completion chosen for each prompt: the SFT rows."""

    config_id = dy.String(primary_key=True)
    prompt_id = dy.String(primary_key=True)
    completion_id = dy.String()
    router = dy.String()


class Pairs(dy.Schema):
    """Preference pairs. ``margin`` is the chosen reward less the rejected one."""

    config_id = dy.String(primary_key=True)
    pair_id = dy.String(primary_key=True)
    prompt_id = dy.String()
    language = dy.String()
    strategy = dy.String()
    chosen_id = dy.String()
    rejected_id = dy.String()
    margin = dy.Float64(nullable=True)
    round = dy.Int32()


class Exports(dy.Schema):
    """Every export: the snapshot that it was read from, and the manifest of the files that were written."""

    export_id = dy.String(primary_key=True)
    config_id = dy.String()
    snapshot = dy.Int64()
    path = dy.String()
    manifest = dy.String()
    created_at = dy.Datetime(time_unit="us", time_zone="UTC")


class Checkpoints(dy.Schema):
    """Every model that was trained or merged: from which parents, on which export, with which settings."""

    checkpoint_id = dy.String(primary_key=True)
    kind = _one_of("base", "sft", "preference", "merge")
    parents = dy.List(dy.String())
    export_id = dy.String(nullable=True)
    path = dy.String()
    config = dy.String()
    metrics = dy.String()
    recorded_at = dy.Datetime(time_unit="us", time_zone="UTC")


class Steps(dy.Schema):
    """The steps of a policy's training, its base first: from which checkpoint, on which export, to which checkpoint.

    ``policy_id`` is the identity of a build's ``[policy]`` table and ``build_id`` that build; ``config_id`` is the
    build whose export the step was trained on, which is a different one in an online round. The policy's held-out
    answers are the completions with its ``settings_id``. A step that is not kept was stopped, for the reason in
    ``detail``, and no later step starts from it. ``config`` holds the step's settings and ``metrics`` its training
    metrics by cluster, as JSON.
    """

    policy_id = dy.String(primary_key=True)
    step = dy.String(primary_key=True)
    place = dy.Int32()
    build_id = dy.String()
    config_id = dy.String(nullable=True)
    export_id = dy.String(nullable=True)
    parent_id = dy.String(nullable=True)
    checkpoint_id = dy.String()
    path = dy.String()
    settings_id = dy.String()
    is_kept = dy.Bool()
    detail = dy.String(nullable=True)
    config = dy.String()
    metrics = dy.String()
    recorded_at = dy.Datetime(time_unit="us", time_zone="UTC")


class StepScores(dy.Schema):
    """How well a step's policy answers held-out prompts: by language, and averaged over languages (``all``).

    ``reward`` is the mean raw reward, lengths are means; ``lpr`` and ``wpr`` are language-confusion pass rates. Wins,
    losses, ties and win rates are against the base; they are null for the base itself.
    """

    policy_id = dy.String(primary_key=True)
    step = dy.String(primary_key=True)
    language = dy.String(primary_key=True)
    num_answers = dy.Int64()
    reward = dy.Float64(nullable=True)
    num_tokens = dy.Float64(nullable=True)
    num_chars = dy.Float64()
    repetition = dy.Float64()
    lpr = dy.Float64(nullable=True)
    wpr = dy.Float64(nullable=True)
    num_wins = dy.Int64(nullable=True)
    num_losses = dy.Int64(nullable=True)
    num_ties = dy.Int64(nullable=True)
    win_rate = dy.Float64(nullable=True)
    win_rate_low = dy.Float64(nullable=True)
    win_rate_high = dy.Float64(nullable=True)
    length_controlled = dy.Float64(nullable=True)


class Builds(dy.Schema):
    """One row per run of a recipe. ``recipe`` is its identity as JSON; secrets are not part of a recipe."""

    run_id = dy.String(primary_key=True)
    config_id = dy.String()
    name = dy.String()
    recipe = dy.String()
    status = _one_of("running", "finished", "failed", "stopped", primary_key=True)
    detail = dy.String(nullable=True)
    recorded_at = dy.Datetime(time_unit="us", time_zone="UTC")


class Usage(dy.Schema):
    """What each lane of each run cost.

    ``num_rows`` counts the rows that the lane finished, rejected or not; ``num_requests`` counts the requests that the
    engine received for them, which are more if a row is translated sentence by sentence. A null ``num_rows`` means one
    request per row.
    """

    run_id = dy.String(primary_key=True)
    stage = dy.String(primary_key=True)
    model = dy.String(primary_key=True)
    settings_id = dy.String()
    device = dy.String()
    num_requests = dy.Int64()
    num_rows = dy.Int64(nullable=True)
    num_rejected = dy.Int64()
    num_prompt_tokens = dy.Int64()
    num_completion_tokens = dy.Int64()
    seconds = dy.Float64()
    recorded_at = dy.Datetime(time_unit="us", time_zone="UTC")


TABLES: dict[str, type[dy.Schema]] = {
    "prompts": Prompts,
    "completions": Completions,
    "rewards": Rewards,
    "reward_index": RewardIndex,
    "verdicts": Verdicts,
    "rejections": Rejections,
    "build_prompts": BuildPrompts,
    "source_rows": SourceRows,
    "reads": Reads,
    "build_models": BuildModels,
    "selections": Selections,
    "pairs": Pairs,
    "exports": Exports,
    "checkpoints": Checkpoints,
    "steps": Steps,
    "step_scores": StepScores,
    "builds": Builds,
    "usage": Usage,
}
"""The schema of every table, by the table's name."""

KEYS: dict[str, tuple[str, ...]] = {name: tuple(schema.primary_key()) for name, schema in TABLES.items()}
"""The columns that make a row of a table unique."""
