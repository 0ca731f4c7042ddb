-- Purpose: every completion of the build, gated or not: answers of its teachers to its kept prompts, and translations of
--          such answers that passed the gates by its translator.
-- Grain: one row per completion. $completions are all of the warehouse, or those that are scored, and $answers those of
--        them that teachers gave.
FROM $answers
UNION ALL
SELECT completions.*, parents.teacher
FROM $completions AS completions
JOIN build_translators
    ON build_translators.settings_id = completions.settings_id AND build_translators.language = completions.language
SEMI JOIN kept_prompt_ids ON kept_prompt_ids.prompt_id = completions.prompt_id
JOIN build_answers AS parents ON parents.completion_id = completions.parent_id
ANTI JOIN (SELECT row_id FROM rejections WHERE config_id = $config_id AND stage = 'gate') AS gated
    ON gated.row_id = completions.parent_id
-- a constant: without a translator this whole half is left out of the plan
WHERE $translates AND completions.origin = 'translated'
    AND parents.teacher IN (SELECT unnest((recipe -> '$.translation.completions_of')::VARCHAR[]) FROM build_recipe)
