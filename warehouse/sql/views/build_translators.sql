-- Purpose: into which languages the build's translator translates.
-- Grain: one row per lane and language.
SELECT DISTINCT settings_id, unnest(languages) AS language
FROM build_models
WHERE config_id = $config_id AND role = 'translator'
