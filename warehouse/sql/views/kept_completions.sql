-- Purpose: the completions of the build that passed its gates, as did the answers that they were translated from.
-- Grain: one row per completion.
WITH gated AS NOT MATERIALIZED (
    SELECT row_id FROM rejections WHERE config_id = $config_id AND stage = 'gate'
)
SELECT completions.*
FROM build_completions AS completions
ANTI JOIN gated ON gated.row_id = completions.completion_id
ANTI JOIN gated AS gated_parents ON gated_parents.row_id = completions.parent_id
