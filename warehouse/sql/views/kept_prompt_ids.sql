-- Purpose: which prompts of the build passed its gates, as did the prompts that they were translated from.
--          Here, as in build_prompt_scope, the views are cut into slices: by the source prompts.
-- Grain: one row per prompt.
WITH gated AS NOT MATERIALIZED (
    SELECT row_id FROM rejections WHERE config_id = $config_id AND stage IN ('read', 'prompt_gate')
),
sources AS NOT MATERIALIZED (
    SELECT prompt_id
    FROM build_prompts
    ANTI JOIN gated ON gated.row_id = build_prompts.prompt_id
    WHERE config_id = $config_id AND in_slice(prompt_id)
)
SELECT prompt_id FROM sources
UNION ALL
SELECT prompts.prompt_id
FROM prompts
JOIN build_translators USING (settings_id, language)
SEMI JOIN sources ON sources.prompt_id = prompts.parent_id
ANTI JOIN gated ON gated.row_id = prompts.prompt_id
WHERE $translates
