-- Purpose: nothing is in a table of facts twice.
-- Grain: one row per repeated key.
SELECT 'prompts ' || prompt_id AS row, count(*) || ' rows' AS detail FROM prompts GROUP BY prompt_id HAVING count(*) > 1
UNION ALL
SELECT 'completions ' || completion_id, count(*) || ' rows' FROM completions GROUP BY completion_id HAVING count(*) > 1
UNION ALL
SELECT 'rewards ' || completion_id, count(*) || ' rows'
FROM rewards GROUP BY completion_id, reward_fingerprint HAVING count(*) > 1
UNION ALL
SELECT 'completions ' || answered.completion_id, 'answered and rejected'
FROM completions AS answered
JOIN rejections ON rejections.row_id = answered.completion_id AND rejections.config_id = ''
    AND rejections.stage IN ('sample', 'translate_completions')
UNION ALL
SELECT 'prompts ' || prompt_id, 'translated and rejected'
FROM prompts
JOIN rejections ON rejections.row_id = prompts.prompt_id AND rejections.config_id = '' AND rejections.stage = 'translate_prompts'
