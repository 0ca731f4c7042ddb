-- Purpose: what a reward model still has to score: the kept completions of the build, less those scored and those set
--          aside.
-- Grain: one row per completion.
SELECT completions.completion_id, completions.prompt_id, completions.language, prompts.messages, completions.text
FROM kept_completions AS completions
JOIN kept_prompts AS prompts ON prompts.prompt_id = completions.prompt_id
ANTI JOIN (
    SELECT completion_id
    FROM rewards
    SEMI JOIN kept_completions USING (completion_id)
    WHERE reward_fingerprint = $settings_id
) AS scored ON scored.completion_id = completions.completion_id
ANTI JOIN (
    SELECT row_id
    FROM rejections
    WHERE config_id = '' AND stage = 'score' AND settings_id = $settings_id
) AS set_aside ON set_aside.row_id = completions.completion_id
