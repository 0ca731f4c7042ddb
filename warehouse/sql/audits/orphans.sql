-- Purpose: every row has the rows that it speaks of.
-- Grain: one row per dangling reference.
SELECT 'completion ' || completion_id AS row, 'no prompt ' || prompt_id AS detail
FROM completions ANTI JOIN prompts USING (prompt_id)
UNION ALL
SELECT 'completion ' || completion_id, 'no parent ' || parent_id
FROM completions
ANTI JOIN (SELECT completion_id AS parent_id FROM completions) USING (parent_id)
WHERE parent_id IS NOT NULL
UNION ALL
SELECT 'prompt ' || prompt_id, 'no parent ' || parent_id
FROM prompts
ANTI JOIN (SELECT prompt_id AS parent_id FROM prompts) USING (parent_id)
WHERE parent_id IS NOT NULL
UNION ALL
SELECT 'reward of ' || completion_id, 'no such completion' FROM rewards ANTI JOIN completions USING (completion_id)
UNION ALL
SELECT 'selection of ' || prompt_id, 'not a candidate: ' || completion_id
FROM selections ANTI JOIN scored_without_text USING (completion_id, prompt_id)
WHERE config_id = $config_id
UNION ALL
SELECT 'pair ' || pair_id, 'chosen is not a candidate: ' || chosen_id
FROM pairs
ANTI JOIN (SELECT completion_id AS chosen_id, prompt_id FROM scored_without_text) USING (chosen_id, prompt_id)
WHERE config_id = $config_id
UNION ALL
SELECT 'pair ' || pair_id, 'rejected is not a candidate: ' || rejected_id
FROM pairs
ANTI JOIN (SELECT completion_id AS rejected_id, prompt_id FROM scored_without_text) USING (rejected_id, prompt_id)
WHERE config_id = $config_id
