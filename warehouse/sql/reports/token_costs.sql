-- Purpose: what a request of a lane has cost so far, in prompt and completion tokens.
-- Grain: one row per stage and lane that has run.
SELECT stage, settings_id, (sum(num_prompt_tokens) + sum(num_completion_tokens)) / sum(num_requests) AS num_tokens
FROM usage
WHERE list_contains($lanes, settings_id)
GROUP BY stage, settings_id
HAVING sum(num_requests) > 0
