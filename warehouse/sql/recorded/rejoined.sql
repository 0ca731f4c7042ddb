-- Purpose: answers of a lane to kept prompts of the build in use that were joined otherwise than its file is joined now.
-- Grain: one row per completion.
SELECT known.completion_id, known.prompt_id
FROM (SELECT completion_id, prompt_id, text FROM completions WHERE settings_id = $settings_id) AS known
SEMI JOIN kept_prompt_ids USING (prompt_id)
LEFT JOIN $current AS current ON current.completion_id = known.completion_id
WHERE current.completion_id IS NULL OR current.text <> known.text
