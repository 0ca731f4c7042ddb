-- Purpose: which teacher (or policy) of the build answers in which language, and how often.
-- Grain: one row per lane and language; two names of the same lane count as one.
SELECT settings_id, language, min(name) AS teacher, max(num_samples) AS num_samples
FROM (SELECT *, unnest(languages) AS language FROM build_models WHERE config_id = $config_id)
WHERE role IN ('teacher', 'policy')
GROUP BY settings_id, language
