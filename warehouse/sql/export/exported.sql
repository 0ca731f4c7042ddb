-- Purpose: the candidates that a build's selections and pairs name; their text stays in the lake.
-- Grain: one row per completion.
SELECT
    answers.completion_id,
    answers.prompt_id,
    answers.language,
    answers.teacher,
    answers.origin,
    answers.translator,
    answers.round,
    answers.reward
FROM scored_completions AS answers
SEMI JOIN (
    SELECT completion_id FROM lake.selections WHERE config_id = $config_id
    UNION ALL
    SELECT unnest([chosen_id, rejected_id]) FROM lake.pairs WHERE config_id = $config_id
) AS named USING (completion_id)
