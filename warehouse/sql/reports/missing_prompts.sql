-- Purpose: which translations a build of prompts lacks, and which rows of its sources are not prompts of it, each with why.
-- Grain: one row per source prompt and language without a kept translation, and one (root_id is null) per row of a source
--        that was rejected.
WITH verdicts AS (
    SELECT row_id, stage, reason, detail, language
    FROM rejections
    WHERE config_id = $config_id
        OR config_id = '' AND stage = 'translate_prompts' AND settings_id IN (SELECT settings_id FROM build_translators)
),
wanted AS (
    SELECT
        scope.prompt_id AS root_id,
        lane.language,
        content_id('translation', [lane.settings_id, scope.prompt_id, lane.language]) AS prompt_id
    FROM build_prompt_scope AS scope
    JOIN build_translators AS lane ON lane.language <> scope.language
    WHERE scope.parent_id IS NULL
)
SELECT
    wanted.root_id,
    wanted.language,
    coalesce(own.stage, parents.stage) AS stage,
    coalesce(own.reason, parents.reason) AS reason,
    coalesce(own.detail, parents.detail) AS detail
FROM wanted
ANTI JOIN kept_prompt_ids AS kept ON kept.prompt_id = wanted.prompt_id
LEFT JOIN verdicts AS own ON own.row_id = wanted.prompt_id
LEFT JOIN verdicts AS parents ON parents.row_id = wanted.root_id
UNION ALL
SELECT NULL, language, stage, reason, detail
FROM verdicts
ANTI JOIN build_prompt_scope AS scope ON scope.prompt_id = verdicts.row_id
WHERE stage IN ('read', 'prompt_gate')
ORDER BY language, root_id, detail
