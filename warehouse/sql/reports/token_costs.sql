-- Purpose: what a row of a lane has cost so far, in prompt and completion tokens of all its requests.
-- Grain: one row per stage and lane that has run. Older runs counted rows as requests, and have no number of rows.
SELECT
    stage,
    settings_id,
    (sum(num_prompt_tokens) + sum(num_completion_tokens)) / sum(coalesce(num_rows, num_requests)) AS num_tokens
FROM usage
WHERE list_contains($lanes, settings_id)
GROUP BY stage, settings_id
HAVING sum(coalesce(num_rows, num_requests)) > 0
