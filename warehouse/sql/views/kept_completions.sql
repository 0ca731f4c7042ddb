-- Purpose: the completions of the build that passed its gates.
-- Grain: one row per completion. $completions are those of the build, or those of them that are scored.
SELECT completions.*
FROM $completions AS completions
ANTI JOIN (SELECT row_id FROM rejections WHERE config_id = $config_id AND stage = 'gate') AS gated
    ON gated.row_id = completions.completion_id
