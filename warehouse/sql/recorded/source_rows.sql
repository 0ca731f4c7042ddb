-- Purpose: the rows of a build's sources: those that were read now, and those that have gone from a source whose prompts
--          stay in the build.
-- Grain: one row per row of a source.
SELECT config_id, row_id, source, "row", "key", language, prompt_id, text_id, is_read FROM $current AS current
UNION ALL
SELECT config_id, row_id, source, "row", "key", language, prompt_id, text_id, is_read
FROM (FROM source_rows WHERE config_id = $config_id) AS known
SEMI JOIN (SELECT prompt_id FROM build_prompts WHERE config_id = $config_id) AS members USING (prompt_id)
ANTI JOIN (SELECT prompt_id FROM $current AS read_now) AS still USING (prompt_id)
