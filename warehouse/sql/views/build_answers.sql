-- Purpose: the answers of the build's teachers to its kept prompts.
-- Grain: one row per completion. $completions are all of the warehouse, or those that are scored.
SELECT completions.*, build_teachers.teacher
FROM $completions AS completions
JOIN build_teachers
    ON build_teachers.settings_id = completions.settings_id AND build_teachers.language = completions.language
SEMI JOIN kept_prompt_ids ON kept_prompt_ids.prompt_id = completions.prompt_id
ANTI JOIN unjoined_answers AS unjoined ON unjoined.completion_id = completions.completion_id
WHERE completions.origin <> 'translated'
    AND (completions.sample_index < build_teachers.num_samples OR completions.origin = 'recorded')
