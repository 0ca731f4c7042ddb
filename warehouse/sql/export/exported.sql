-- Purpose: the candidates that a build's selections and pairs name; their text stays in the lake.
-- Grain: one row per completion.
SELECT
    candidates.completion_id,
    candidates.prompt_id,
    candidates.language,
    candidates.teacher,
    candidates.origin,
    candidates.translator,
    candidates.round,
    candidates.reward
FROM candidates
SEMI JOIN (
    SELECT completion_id FROM lake.selections WHERE config_id = $config_id
    UNION ALL
    SELECT unnest([chosen_id, rejected_id]) FROM lake.pairs WHERE config_id = $config_id
) AS named USING (completion_id)
