-- Purpose: selections and pairs of a build that name a completion which is not a candidate, so that no row can be made of
--          them. None means pass.
-- Grain: one row per missing completion of a selection or pair.
SELECT named.completion_id, named.used_by
FROM (
    SELECT completion_id, 'sft' AS used_by FROM lake.selections WHERE config_id = $config_id
    UNION ALL
    SELECT chosen_id, 'preference' FROM lake.pairs WHERE config_id = $config_id
    UNION ALL
    SELECT rejected_id, 'preference' FROM lake.pairs WHERE config_id = $config_id
) AS named
ANTI JOIN exported USING (completion_id)
ORDER BY named.completion_id
