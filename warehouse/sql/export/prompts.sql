-- Purpose: the prompts of what is exported, with where they come from.
-- Grain: one row per prompt.
SELECT prompt_id, root_id, translator AS prompt_translator, source, source_row, split, messages
FROM split_prompts
WHERE prompt_id IN (SELECT prompt_id FROM exported)
