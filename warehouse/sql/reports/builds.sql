-- Purpose: the builds of the warehouse, the last one first, each as its last run left it.
-- Grain: one row per build.
SELECT
    name,
    config_id AS build,
    count(DISTINCT run_id) AS num_runs,
    strftime(min(recorded_at), '%Y-%m-%d %H:%M') AS first_run,
    strftime(max(recorded_at), '%Y-%m-%d %H:%M') AS last_change,
    max_by(status, recorded_at) AS status,
    max_by(detail, recorded_at) AS detail
FROM builds
GROUP BY name, config_id
ORDER BY max(recorded_at) DESC
