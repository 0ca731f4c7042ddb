-- Purpose: answers of a lane to kept prompts of the build in use in whose place its file has another text now.
-- Grain: one row per completion.
SELECT known.completion_id, known.prompt_id
FROM (SELECT completion_id, prompt_id, text FROM completions WHERE settings_id = $settings_id) AS known
SEMI JOIN kept_prompt_ids USING (prompt_id)
JOIN $current AS current ON current.completion_id = known.completion_id
WHERE current.text <> known.text
