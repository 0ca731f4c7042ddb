-- Purpose: what the translator still has to make of prompts: every kept source prompt of the build in each of its
--          languages but the prompt's own, less those translated and those set aside.
-- Grain: one row per request.
SELECT prompt_id, parent_id, root_id, source_language, language, messages, source, source_row, split
FROM (
    SELECT *, content_id('translation', [$settings_id, parent_id, language]) AS prompt_id
    FROM (
        SELECT
            prompt_id AS parent_id,
            root_id,
            language AS source_language,
            unnest(list_filter($languages, lambda target: target <> language)) AS language,
            messages,
            source,
            source_row,
            split
        FROM kept_prompts
        WHERE kept_prompts.parent_id IS NULL
    ) AS wanted
    ANTI JOIN (
        SELECT parent_id, language
        FROM prompts
        WHERE settings_id = $settings_id AND in_slice(parent_id)
    ) AS translated USING (parent_id, language)
) AS untranslated
ANTI JOIN (
    SELECT row_id
    FROM rejections
    WHERE config_id = '' AND stage = 'translate_prompts' AND settings_id = $settings_id
) AS set_aside ON set_aside.row_id = untranslated.prompt_id
