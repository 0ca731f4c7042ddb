-- Purpose: every completion of the build, gated or not: answers of its teachers to its prompts, and translations of such
--          answers by its translator.
-- Grain: one row per completion.
WITH answers AS NOT MATERIALIZED (
    SELECT completions.*, build_teachers.teacher, prompts.root_id, prompts.split
    FROM completions
    JOIN build_teachers
        ON build_teachers.settings_id = completions.settings_id AND build_teachers.language = completions.language
    JOIN kept_prompts AS prompts ON prompts.prompt_id = completions.prompt_id
    WHERE completions.origin <> 'translated'
        AND (completions.sample_index < build_teachers.num_samples OR completions.origin = 'recorded')
)
SELECT * FROM answers
UNION ALL
SELECT completions.*, parents.teacher, prompts.root_id, prompts.split
FROM completions
JOIN build_translators
    ON build_translators.settings_id = completions.settings_id AND build_translators.language = completions.language
JOIN kept_prompts AS prompts ON prompts.prompt_id = completions.prompt_id
JOIN answers AS parents ON parents.completion_id = completions.parent_id
WHERE completions.origin = 'translated'
    AND parents.teacher IN (SELECT unnest((recipe -> '$.translation.completions_of')::VARCHAR[]) FROM build_recipe)
