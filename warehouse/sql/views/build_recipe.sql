-- Purpose: the recipe of the build, as JSON; execution settings are not part of it.
-- Grain: one row, or none when no run of the build is recorded.
SELECT config_id, any_value(name) AS name, any_value(recipe)::JSON AS recipe
FROM builds
WHERE config_id = $config_id
GROUP BY config_id
