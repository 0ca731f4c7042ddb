-- Purpose: the prompts of the build that passed its gates, as did the prompts that they were translated from.
-- Grain: one row per prompt.
WITH gated AS NOT MATERIALIZED (
    SELECT row_id FROM rejections WHERE config_id = $config_id AND stage IN ('read', 'prompt_gate')
)
SELECT prompts.*
FROM build_prompt_scope AS prompts
ANTI JOIN gated ON gated.row_id = prompts.prompt_id
ANTI JOIN gated AS gated_parents ON gated_parents.row_id = prompts.parent_id
