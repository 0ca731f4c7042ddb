-- Purpose: every prompt of the build: its source prompts and their translations by the build's translator.
-- Grain: one row per prompt.
SELECT prompts.*
FROM split_prompts AS prompts
SEMI JOIN (SELECT prompt_id FROM build_prompts WHERE config_id = $config_id AND in_slice(prompt_id)) AS sources USING (prompt_id)
UNION ALL
SELECT prompts.*
FROM split_prompts AS prompts
JOIN build_translators USING (settings_id, language)
SEMI JOIN (SELECT prompt_id FROM build_prompts WHERE config_id = $config_id AND in_slice(prompt_id)) AS sources
    ON sources.prompt_id = prompts.parent_id
WHERE $translates
