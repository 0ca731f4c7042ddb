-- Purpose: the builds of the warehouse, the last one first, each as its last run left it.
-- Grain: one row per build.
SELECT
    name,
    config_id AS build,
    count(DISTINCT run_id) AS num_runs,
    strftime(min(at), '%Y-%m-%d %H:%M') AS first_run,
    strftime(max(at), '%Y-%m-%d %H:%M') AS last_change,
    max_by(status, at) AS status,
    max_by(detail, at) AS detail
FROM builds
GROUP BY name, config_id
ORDER BY max(at) DESC
