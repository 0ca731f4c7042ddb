-- Purpose: the bookkeeping of one build: at every stage, what went in came out, was rejected, or is still to be done.
--          Of slices these are counts that add up to those of the whole build.
-- Grain: one row per stage, in order.
WITH lanes AS (
    SELECT * FROM build_models WHERE config_id = $config_id
),
failures AS (
    SELECT stage, row_id FROM rejections
    WHERE config_id = '' AND settings_id IN (SELECT settings_id FROM lanes)
),
-- Each view once, since planning all of them takes seconds, and as counts, since rows would pile up in memory.
sources AS MATERIALIZED (
    SELECT count(*) AS num FROM build_prompts WHERE config_id = $config_id AND in_slice(prompt_id)
),
scope AS MATERIALIZED (
    SELECT count(*) AS num FROM build_prompt_scope
),
good_prompts AS MATERIALIZED (
    SELECT language, count(*) AS num, count(*) FILTER (parent_id IS NULL) AS num_sources FROM kept_prompts GROUP BY language
),
answers AS MATERIALIZED (
    SELECT
        count(*) AS num,
        count(*) FILTER (origin = 'recorded') AS num_recorded,
        count(*) FILTER (origin IN ('in_language', 'on_policy')) AS num_sampled,
        count(*) FILTER (NOT is_gated) AS num_good,
        count(*) FILTER (NOT is_gated AND has_failed) AS num_failed
    FROM (
        SELECT
            origin,
            completion_id IN (SELECT row_id FROM rejections WHERE config_id = $config_id AND stage = 'gate') AS is_gated,
            completion_id IN (SELECT row_id FROM failures WHERE stage = 'score') AS has_failed
        FROM build_completions
    )
),
scored AS MATERIALIZED (
    SELECT count(*) AS num, count(DISTINCT prompt_id) FILTER (origin <> 'translated') AS num_prompts
    FROM scored_without_text
),
verdicts AS (
    SELECT stage, count(*) AS num FROM rejections WHERE config_id = $config_id AND in_slice(row_id) GROUP BY stage
),
refused AS NOT MATERIALIZED (
    SELECT row_id FROM rejections WHERE config_id = $config_id AND stage IN ('read', 'prompt_gate') AND settings_id = ''
),
-- Recorded answers that are none, or to no prompt of the build; their rejections name the lane.
unjoined AS (
    SELECT count(*) AS num FROM rejections
    WHERE config_id = $config_id AND stage = 'read' AND settings_id <> '' AND in_slice(row_id)
),
-- Refused rows that are not prompts of the build; in slices these are cut otherwise than its prompts.
unread AS MATERIALIZED (
    SELECT
        (SELECT count(*) FROM refused WHERE in_slice(row_id))
        - (SELECT count(*) FROM build_prompt_scope JOIN refused ON refused.row_id = build_prompt_scope.prompt_id) AS num
),
wanted_prompts AS (
    SELECT content_id('translation', [lane.settings_id, prompt_id, lane.language]) AS row_id
    FROM kept_prompts JOIN build_translators AS lane ON lane.language <> kept_prompts.language
    WHERE $translates_prompts AND parent_id IS NULL
),
recorded_teachers AS (
    SELECT teacher ->> '$.name' AS name
    FROM (SELECT unnest((recipe -> '$.teachers')::JSON[]) AS teacher FROM build_recipe)
    WHERE teacher ->> '$.engine' = 'recorded'
),
sampling_lanes AS (
    SELECT * FROM build_teachers WHERE teacher NOT IN (FROM recorded_teachers)
),
wanted_samples AS (
    SELECT content_id('completion', json_array(settings_id, prompt_id, sample_index)) AS row_id
    FROM (
        SELECT lane.settings_id, prompt_id, unnest(range(num_samples))::INTEGER AS sample_index
        FROM kept_prompts JOIN sampling_lanes AS lane USING (language)
    )
),
wanted_translations AS (
    SELECT content_id('translation', [lane.settings_id, answers.completion_id, lane.language]) AS row_id
    FROM kept_completions AS answers
    JOIN kept_prompts AS origins ON origins.prompt_id = answers.prompt_id
    JOIN kept_prompts AS siblings ON siblings.root_id = origins.root_id
    JOIN build_translators AS lane ON lane.language = siblings.language
    WHERE $translates AND answers.language = 'en' AND siblings.language <> 'en' AND answers.origin <> 'translated'
        AND answers.teacher IN (SELECT unnest((recipe -> '$.translation.completions_of')::VARCHAR[]) FROM build_recipe)
),
translated AS NOT MATERIALIZED (
    SELECT completion_id FROM completions SEMI JOIN kept_prompt_ids USING (prompt_id) WHERE origin = 'translated'
),
stages AS (
    SELECT 1 AS place, 'read prompts' AS stage,
        (SELECT num FROM sources) + (SELECT num FROM unread) AS num_in,
        (SELECT num FROM sources) AS num_out,
        (SELECT num FROM unread) AS num_rejected
    UNION ALL
    SELECT 2, 'translate prompts',
        (
            SELECT coalesce(sum(num_sources), 0)
            FROM good_prompts JOIN build_translators AS lane ON lane.language <> good_prompts.language
            WHERE $translates_prompts
        ),
        (SELECT count(*) FROM wanted_prompts SEMI JOIN prompts ON prompts.prompt_id = row_id AND in_slice(prompts.root_id)),
        (SELECT count(*) FROM wanted_prompts SEMI JOIN (FROM failures WHERE stage = 'translate_prompts') AS failed USING (row_id))
    UNION ALL
    SELECT 3, 'gate prompts',
        (SELECT num FROM scope),
        (SELECT coalesce(sum(num), 0) FROM good_prompts),
        (SELECT num FROM scope) - (SELECT coalesce(sum(num), 0) FROM good_prompts)
    UNION ALL
    SELECT 4, 'sample',
        (SELECT coalesce(sum(num * num_samples), 0) FROM good_prompts JOIN sampling_lanes USING (language)),
        (SELECT num_sampled FROM answers),
        (SELECT count(*) FROM wanted_samples SEMI JOIN (FROM failures WHERE stage = 'sample') AS failed USING (row_id))
    UNION ALL
    SELECT 5, 'join recorded',
        (SELECT num_recorded FROM answers) + (SELECT num FROM unjoined),
        (SELECT num_recorded FROM answers),
        (SELECT num FROM unjoined)
    UNION ALL
    SELECT 6, 'translate completions',
        (SELECT count(*) FROM wanted_translations),
        (SELECT count(*) FROM wanted_translations SEMI JOIN translated ON translated.completion_id = row_id),
        (SELECT count(*) FROM wanted_translations SEMI JOIN (FROM failures WHERE stage = 'translate_completions') AS failed USING (row_id))
    UNION ALL
    SELECT 7, 'gate completions',
        (SELECT num FROM answers),
        (SELECT num_good FROM answers),
        (SELECT num FROM answers) - (SELECT num_good FROM answers)
    UNION ALL
    SELECT 8, 'score',
        (SELECT num_good FROM answers),
        (SELECT num FROM scored),
        (SELECT num_failed FROM answers)
    UNION ALL
    SELECT 9, 'route',
        (SELECT num_prompts FROM scored),
        (SELECT count(*) FROM selections WHERE config_id = $config_id AND in_slice(prompt_id)),
        0
    UNION ALL
    SELECT 10, 'pair',
        (SELECT count(*) FROM pairs WHERE config_id = $config_id AND in_slice(prompt_id))
            + (SELECT coalesce(sum(num), 0) FROM verdicts WHERE starts_with(stage, 'pair:')),
        (SELECT count(*) FROM pairs WHERE config_id = $config_id AND in_slice(prompt_id)),
        (SELECT coalesce(sum(num), 0) FROM verdicts WHERE starts_with(stage, 'pair:'))
)
SELECT
    stage,
    num_in::BIGINT AS num_in,
    num_out::BIGINT AS num_out,
    num_rejected::BIGINT AS num_rejected,
    (num_in - num_out - num_rejected)::BIGINT AS num_pending
FROM stages
ORDER BY place
