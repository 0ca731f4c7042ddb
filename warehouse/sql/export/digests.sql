-- Purpose: digests of the texts of what is exported. (Filters rather than joins, so that no text is ever put in a hash
--          table.)
-- Grain: one row per completion, one row per prompt.
SELECT completion_id AS id, md5(text) AS digest
FROM lake.completions
WHERE completion_id IN (SELECT completion_id FROM exported)
UNION ALL
SELECT prompt_id AS id, md5(to_json(messages)::VARCHAR) AS digest
FROM lake.prompts
WHERE prompt_id IN (SELECT prompt_id FROM exported)
