-- Purpose: what a build chose is in its languages, and in the language of its prompt.
-- Grain: one row per completion.
WITH languages AS (
    SELECT unnest((recipe -> '$.languages')::VARCHAR[]) AS language FROM build_recipe
)
SELECT 'completion ' || completion_id AS row, 'language ' || language AS detail
FROM build_completions ANTI JOIN languages USING (language)
UNION ALL
SELECT 'completion ' || completion_id, completions.language || ' answers a prompt in ' || prompts.language
FROM build_completions AS completions
JOIN prompts USING (prompt_id)
WHERE completions.language <> prompts.language
