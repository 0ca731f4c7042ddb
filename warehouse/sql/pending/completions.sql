-- Purpose: what a teacher's lane still has to answer: wanted samples of the build's kept prompts, less those answered and
--          those set aside. Ids are made last, for the pending rows alone.
-- Grain: one row per request; the samples of a prompt follow one another.
SELECT completion_id, prompt_id, root_id, language, messages, sample_index
FROM (
    SELECT *, content_id('completion', json_array($settings_id, prompt_id, sample_index)) AS completion_id
    FROM (
        SELECT prompt_id, root_id, language, messages, unnest(range($num_samples))::INTEGER AS sample_index
        FROM kept_prompts
        WHERE list_contains($languages, language)
    ) AS wanted
    ANTI JOIN (
        SELECT prompt_id, sample_index
        FROM completions
        SEMI JOIN kept_prompt_ids USING (prompt_id)
        WHERE settings_id = $settings_id
    ) AS answered USING (prompt_id, sample_index)
) AS unanswered
ANTI JOIN (
    SELECT row_id
    FROM rejections
    WHERE config_id = '' AND stage = 'sample' AND settings_id = $settings_id
) AS set_aside ON set_aside.row_id = unanswered.completion_id
