-- Purpose: what a plan starts from: of the prompts with given roots, how many prompts and completions there are for later
--          stages to work on (kept), and how many requests of each lane are settled, by an answer or for a final reason.
-- Grain: one row per kind, stage or table, lane and language. ``roots`` is a table of root ids.
WITH roots AS (
    SELECT root_id FROM $roots
),
verdicts AS (
    SELECT row_id FROM rejections WHERE config_id = $config_id
),
scope AS (
    SELECT prompt_id, root_id, language, parent_id, settings_id
    FROM prompts SEMI JOIN roots USING (root_id)
    WHERE parent_id IS NULL OR list_contains($lanes, settings_id)
),
kept_scope AS (
    SELECT * FROM scope ANTI JOIN verdicts ON row_id = prompt_id ANTI JOIN verdicts AS parents ON parents.row_id = parent_id
),
answers AS (
    SELECT completion_id, prompt_id, scope.root_id, completions.language, completions.settings_id, origin
    FROM completions JOIN scope USING (prompt_id)
    WHERE list_contains($lanes, completions.settings_id)
),
kept_answers AS (
    SELECT answers.* FROM answers SEMI JOIN kept_scope USING (prompt_id) ANTI JOIN verdicts ON row_id = completion_id
),
final AS (
    SELECT stage, settings_id, language, row_id
    FROM rejections
    WHERE config_id = '' AND list_contains($lanes, settings_id) AND NOT list_contains($transient, reason)
),
counted AS (
    SELECT 'kept' AS kind, 'prompts' AS stage, '' AS settings_id, language FROM kept_scope WHERE parent_id IS NOT NULL
    UNION ALL
    SELECT 'kept', 'completions', '', language FROM kept_answers
    UNION ALL
    SELECT 'kept', 'siblings', '', siblings.language
    FROM kept_answers JOIN kept_scope AS siblings USING (root_id)
    WHERE kept_answers.language = 'en' AND origin <> 'translated' AND siblings.language <> 'en'
        AND list_contains($translated, kept_answers.settings_id)
    UNION ALL
    SELECT 'settled', 'translate_prompts', settings_id, language FROM scope WHERE parent_id IS NOT NULL
    UNION ALL
    SELECT 'settled', if(origin = 'translated', 'translate_completions', 'sample'), settings_id, language FROM answers
    UNION ALL
    SELECT 'settled', 'score', reward_fingerprint, language
    FROM kept_answers JOIN rewards USING (completion_id)
    WHERE list_contains($lanes, reward_fingerprint)
    UNION ALL
    SELECT 'settled', stage, settings_id, language FROM final
    WHERE stage <> 'score' OR row_id IN (SELECT completion_id FROM kept_answers)
)
SELECT kind, stage, settings_id, language, count(*) AS num
FROM counted
GROUP BY ALL
