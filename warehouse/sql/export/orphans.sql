-- Purpose: selections and pairs of build $1 that name a completion which is no candidate, so that no row can be made of
--          them. None means pass.
-- Grain: one row per missing completion of a selection or pair.
SELECT named.completion_id, named.used_by
FROM (
    SELECT completion_id, 'sft' AS used_by FROM lake.selections WHERE config_id = $1
    UNION ALL
    SELECT chosen_id, 'preference' FROM lake.pairs WHERE config_id = $1
    UNION ALL
    SELECT rejected_id, 'preference' FROM lake.pairs WHERE config_id = $1
) AS named
ANTI JOIN candidates USING (completion_id)
ORDER BY named.completion_id
