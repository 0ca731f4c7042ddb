-- Purpose: the candidates that a build's selections and pairs name. Kept as a table while an export is made, since the
--          candidates are dear to find; their text stays in the lake.
-- Grain: one row per completion.
SELECT candidates.completion_id, candidates.teacher, candidates.reward
FROM candidates
SEMI JOIN (
    SELECT completion_id FROM lake.selections WHERE config_id = $config_id
    UNION ALL
    SELECT unnest([chosen_id, rejected_id]) FROM lake.pairs WHERE config_id = $config_id
) AS named USING (completion_id)
