-- Purpose: what the translator still has to make of completions: the kept English answers of the named teachers in each
--          language in which the build has the same prompt, less those translated and those set aside.
-- Grain: one row per request; prompt_id is the sibling prompt that the translation will answer.
SELECT
    completion_id, parent_id, prompt_id, root_id, source_language, language, text, model, model_fingerprint, round,
    sample_index, finish_reason
FROM (
    SELECT *, content_id('translation', [$settings_id, parent_id, language]) AS completion_id
    FROM (
        SELECT
            answers.completion_id AS parent_id,
            siblings.prompt_id,
            siblings.root_id,
            answers.language AS source_language,
            siblings.language,
            answers.text,
            answers.model,
            answers.model_fingerprint,
            answers.round,
            answers.sample_index,
            answers.finish_reason
        FROM kept_completions AS answers
        JOIN kept_prompts AS origins ON origins.prompt_id = answers.prompt_id
        JOIN kept_prompts AS siblings ON siblings.root_id = origins.root_id
        WHERE answers.language = 'en'
            AND answers.origin <> 'translated'
            AND list_contains($teachers, answers.teacher)
            AND list_contains($languages, siblings.language)
            AND siblings.language <> 'en'
    ) AS wanted
    ANTI JOIN (
        SELECT parent_id, language
        FROM completions
        SEMI JOIN kept_prompt_ids USING (prompt_id)
        WHERE settings_id = $settings_id
    ) AS translated USING (parent_id, language)
) AS untranslated
ANTI JOIN (
    SELECT row_id
    FROM rejections
    WHERE config_id = '' AND stage = 'translate_completions' AND settings_id = $settings_id
) AS set_aside ON set_aside.row_id = untranslated.completion_id
