-- Purpose: how many of a build's prompts each of its sources gave; one that several have is the first source's.
-- Grain: one row per source.
SELECT source, count(*) AS num
FROM (
    SELECT min_by(source, list_position($sources, source)) AS source
    FROM source_rows SEMI JOIN build_prompts USING (config_id, prompt_id)
    WHERE config_id = $config_id AND is_read
    GROUP BY prompt_id
)
GROUP BY ALL
