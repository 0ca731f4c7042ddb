-- Purpose: the answers that a model, or a model that it was made from, was trained on: from a merged policy back to its
--          teachers' answers, and to earlier policies' own. Selections and pairs are those that their builds have now.
-- Grain: one row per model, training run, prompt, role (selected, chosen, rejected), pair strategy and completion.
WITH percents AS (
    SELECT DISTINCT config_id, source ->> '$.name' AS source, (source ->> '$.eval_percent')::DOUBLE AS eval_percent
    FROM (SELECT config_id, unnest((recipe::JSON -> '$.prompts')::JSON[]) AS source FROM builds)
),
runs AS (
    SELECT
        checkpoints.checkpoint_id,
        exports.config_id,
        checkpoints.kind,
        (checkpoints.config::JSON -> '$."settings.languages"')::VARCHAR[] AS languages,
        (checkpoints.config::JSON -> '$."settings.strategies"')::VARCHAR[] AS strategies
    FROM checkpoints
    JOIN exports ON exports.export_id = checkpoints.export_id
),
rows AS (
    SELECT runs.checkpoint_id, runs.config_id, runs.languages, 'selected' AS role, NULL AS strategy, completion_id
    FROM runs
    JOIN selections ON selections.config_id = runs.config_id
    WHERE runs.kind = 'sft'
    UNION ALL
    SELECT
        runs.checkpoint_id,
        runs.config_id,
        runs.languages,
        unnest(['chosen', 'rejected']),
        pairs.strategy,
        unnest([pairs.chosen_id, pairs.rejected_id])
    FROM runs
    JOIN pairs ON pairs.config_id = runs.config_id
    WHERE runs.kind = 'preference' AND (len(runs.strategies) = 0 OR list_contains(runs.strategies, pairs.strategy))
)
SELECT
    ancestry.checkpoint_id,
    rows.checkpoint_id AS trained_id,
    rows.config_id,
    rows.role,
    rows.strategy,
    completions.prompt_id,
    completions.completion_id,
    completions.language,
    completions.model,
    completions.model_fingerprint,
    completions.round
FROM ancestry
JOIN rows ON rows.checkpoint_id = ancestry.ancestor_id
JOIN completions ON completions.completion_id = rows.completion_id
JOIN prompts ON prompts.prompt_id = completions.prompt_id
LEFT JOIN percents ON percents.config_id = rows.config_id AND percents.source = prompts.source
WHERE choose_split(prompts.root_id, percents.eval_percent, prompts.split) = 'train'
    AND (len(rows.languages) = 0 OR list_contains(rows.languages, completions.language))
