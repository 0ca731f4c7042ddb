-- Purpose: how much of what a build wants is settled: answered, or set aside for a final reason.
-- Grain: one row per stage, lane and language.
WITH lanes AS (
    SELECT settings_id FROM build_models WHERE config_id = $config_id
),
settled AS (
    SELECT 'translate_prompts' AS stage, settings_id, language FROM build_prompt_scope WHERE parent_id IS NOT NULL
    UNION ALL
    SELECT if(origin = 'translated', 'translate_completions', 'sample'), settings_id, language
    FROM build_completions
    UNION ALL
    SELECT 'score', reward_fingerprint, language
    FROM kept_completions JOIN rewards USING (completion_id)
    UNION ALL
    SELECT stage, settings_id, language FROM rejections WHERE config_id = '' AND NOT list_contains($transient, reason)
)
SELECT stage, settings_id, language, count(*) AS num_requests
FROM settled SEMI JOIN lanes USING (settings_id)
GROUP BY stage, settings_id, language
