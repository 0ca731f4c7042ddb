-- Purpose: the prompts of the build that passed its gates, as did the prompts that they were translated from.
-- Grain: one row per prompt.
SELECT * FROM split_prompts SEMI JOIN kept_prompt_ids USING (prompt_id)
