-- Purpose: what the build's lanes cost, over all runs of the warehouse that used them.
-- Grain: one row per stage and model.
SELECT
    stage,
    model,
    string_agg(DISTINCT device, ' | ') AS device,
    sum(num_requests)::BIGINT AS num_requests,
    sum(num_rejected)::BIGINT AS num_rejected,
    sum(num_prompt_tokens)::BIGINT AS num_prompt_tokens,
    sum(num_completion_tokens)::BIGINT AS num_completion_tokens,
    sum(seconds) AS seconds,
    (sum(num_prompt_tokens) + sum(num_completion_tokens)) / sum(seconds) AS tokens_per_second
FROM usage
WHERE settings_id IN (SELECT settings_id FROM build_models WHERE config_id = $config_id)
GROUP BY stage, model
ORDER BY min(recorded_at)
