-- Purpose: prompts that a build would export to one split while the prompt itself, a parent or a sibling of it goes to
--          the other. None means pass.
-- Grain: one row per root.
WITH used AS NOT MATERIALIZED (
    SELECT prompt_id, root_id, split
    FROM split_prompts
    SEMI JOIN (
        SELECT prompt_id FROM lake.selections WHERE config_id = $config_id
        UNION ALL
        SELECT prompt_id FROM lake.pairs WHERE config_id = $config_id
    ) AS named USING (prompt_id)
),
torn AS (
    SELECT root_id FROM used GROUP BY root_id HAVING min(split) <> max(split)
)
SELECT root_id, list(DISTINCT prompt_id ORDER BY prompt_id) AS prompt_ids
FROM used SEMI JOIN torn USING (root_id)
GROUP BY root_id
ORDER BY root_id
