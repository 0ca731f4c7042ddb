-- Purpose: the bookkeeping of one build: at every stage, what went in came out or was rejected.
-- Grain: one row per stage, in order.
WITH lanes AS (
    SELECT * FROM build_models WHERE config_id = $config_id
),
failures AS (
    SELECT stage, count(*) AS num
    FROM rejections
    WHERE config_id = '' AND settings_id IN (SELECT settings_id FROM lanes)
    GROUP BY stage
),
verdicts AS (
    SELECT stage, count(*) AS num FROM rejections WHERE config_id = $config_id GROUP BY stage
),
gated_sources AS (
    SELECT count(*) AS num
    FROM rejections AS rejected
    ANTI JOIN build_prompt_scope AS scope ON scope.prompt_id = rejected.row_id
    WHERE rejected.config_id = $config_id AND rejected.stage = 'prompt_gate'
),
stages AS (
    SELECT 1 AS place, 'read prompts' AS stage,
        (SELECT count(*) FROM build_prompts WHERE config_id = $config_id) AS num_out,
        (SELECT coalesce(sum(num), 0) FROM verdicts WHERE stage = 'read') + (SELECT num FROM gated_sources) AS num_rejected
    UNION ALL
    SELECT 2, 'translate prompts',
        (SELECT count(*) FROM build_prompt_scope WHERE parent_id IS NOT NULL),
        (SELECT coalesce(sum(num), 0) FROM failures WHERE stage = 'translate_prompts')
    UNION ALL
    SELECT 3, 'gate prompts',
        (SELECT count(*) FROM kept_prompts),
        (SELECT count(*) FROM build_prompt_scope) - (SELECT count(*) FROM kept_prompts)
    UNION ALL
    SELECT 4, 'sample',
        (SELECT count(*) FROM build_completions WHERE origin <> 'translated'),
        (SELECT coalesce(sum(num), 0) FROM failures WHERE stage = 'sample')
    UNION ALL
    SELECT 5, 'translate completions',
        (SELECT count(*) FROM build_completions WHERE origin = 'translated'),
        (SELECT coalesce(sum(num), 0) FROM failures WHERE stage = 'translate_completions')
    UNION ALL
    SELECT 6, 'gate completions',
        (SELECT count(*) FROM kept_completions),
        (SELECT count(*) FROM build_completions) - (SELECT count(*) FROM kept_completions)
    UNION ALL
    SELECT 7, 'score',
        (SELECT count(*) FROM candidates),
        (SELECT count(*) FROM kept_completions) - (SELECT count(*) FROM candidates)
    UNION ALL
    SELECT 8, 'route',
        (SELECT count(*) FROM selections WHERE config_id = $config_id),
        0
    UNION ALL
    SELECT 9, 'pair',
        (SELECT count(*) FROM pairs WHERE config_id = $config_id),
        (SELECT coalesce(sum(num), 0) FROM verdicts WHERE starts_with(stage, 'pair:'))
)
SELECT stage, num_out + num_rejected AS num_in, num_out, num_rejected::BIGINT AS num_rejected
FROM stages
ORDER BY place
