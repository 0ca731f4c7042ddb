-- Purpose: prompts that a build would export to one split while the prompt itself, a parent or a sibling of it goes to
--          the other. None means pass.
-- Grain: one row per root.
SELECT prompts.root_id, list(DISTINCT prompts.prompt_id ORDER BY prompts.prompt_id) AS prompt_ids
FROM (
    SELECT prompt_id FROM lake.selections WHERE config_id = $config_id
    UNION
    SELECT prompt_id FROM lake.pairs WHERE config_id = $config_id
)
JOIN lake.prompts AS prompts USING (prompt_id)
GROUP BY prompts.root_id
HAVING count(DISTINCT prompts.split) > 1
ORDER BY prompts.root_id
