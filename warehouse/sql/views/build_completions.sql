-- Purpose: every completion of the build, gated or not: answers of its teachers to its kept prompts, and translations of
--          such answers that passed the gates by its translator.
-- Grain: one row per completion.
WITH answers AS NOT MATERIALIZED (
    SELECT completions.*, build_teachers.teacher
    FROM completions
    JOIN build_teachers
        ON build_teachers.settings_id = completions.settings_id AND build_teachers.language = completions.language
    SEMI JOIN kept_prompt_ids ON kept_prompt_ids.prompt_id = completions.prompt_id
    ANTI JOIN unjoined_answers AS unjoined ON unjoined.completion_id = completions.completion_id
    WHERE completions.origin <> 'translated'
        AND (completions.sample_index < build_teachers.num_samples OR completions.origin = 'recorded')
),
translations AS NOT MATERIALIZED (
    SELECT completions.*, parents.teacher
    FROM completions
    JOIN build_translators
        ON build_translators.settings_id = completions.settings_id AND build_translators.language = completions.language
    SEMI JOIN kept_prompt_ids ON kept_prompt_ids.prompt_id = completions.prompt_id
    JOIN answers AS parents ON parents.completion_id = completions.parent_id
    ANTI JOIN (SELECT row_id FROM rejections WHERE config_id = $config_id AND stage = 'gate') AS gated
        ON gated.row_id = completions.parent_id
    -- a constant: without a translator this whole half is left out of the plan
    WHERE $translates AND completions.origin = 'translated'
        AND parents.teacher IN (SELECT unnest((recipe -> '$.translation.completions_of')::VARCHAR[]) FROM build_recipe)
)
FROM answers
UNION ALL
FROM translations
