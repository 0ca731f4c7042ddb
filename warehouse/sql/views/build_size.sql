-- Purpose: how large the build is: the prompts that it has once all are translated.
-- Grain: one row.
SELECT count(*) * (1 + if($translates, (SELECT count(DISTINCT language) FROM build_translators), 0)) AS num_prompts
FROM build_prompts
WHERE config_id = $config_id
