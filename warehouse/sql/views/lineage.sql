-- Purpose: where a completion comes from: its prompt, the prompt's source row, the answer and the prompt it was translated from.
-- Grain: one row per completion of the build.
SELECT
    completions.completion_id,
    completions.language,
    completions.teacher,
    completions.origin,
    completions.parent_id AS translated_from_completion,
    completions.translator,
    completions.prompt_id,
    prompts.parent_id AS translated_from_prompt,
    prompts.translator AS prompt_translator,
    prompts.root_id,
    prompts.source,
    prompts.source_row,
    prompts.split
FROM build_completions AS completions
JOIN split_prompts AS prompts ON prompts.prompt_id = completions.prompt_id
