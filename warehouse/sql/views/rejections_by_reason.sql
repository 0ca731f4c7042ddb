-- Purpose: what the build dropped, and why.
-- Grain: one row per stage, reason and model.
SELECT stage, reason, model, count(*) AS num_rows, any_value(detail) AS example
FROM rejections
WHERE config_id = $config_id
    OR config_id = '' AND settings_id IN (SELECT settings_id FROM build_models WHERE config_id = $config_id)
GROUP BY stage, reason, model
ORDER BY num_rows DESC, stage, reason, model
