-- Purpose: the answers of a lane to kept prompts of the build in use that no row of its file joins any more, as rejections;
--          why is said by a rejected row with the same text, where there is one.
-- Grain: one row of rejections per completion.
SELECT
    $config_id AS config_id,
    known.completion_id AS row_id,
    'join' AS stage,
    $settings_id AS settings_id,
    coalesce(explained.reason, 'no_such_prompt') AS reason,
    coalesce(explained.detail, 'no row gives this answer to its prompt any more') AS detail,
    known.language,
    known.model
FROM (SELECT completion_id, prompt_id, language, model, text FROM completions WHERE settings_id = $settings_id) AS known
SEMI JOIN kept_prompt_ids USING (prompt_id)
ANTI JOIN $current AS current ON current.completion_id = known.completion_id
LEFT JOIN (
    SELECT row_id, min_by(reason, detail) AS reason, min(detail) AS detail FROM $explanations AS by_text GROUP BY row_id
) AS explained ON explained.row_id = content_id('answer', [known.text])
