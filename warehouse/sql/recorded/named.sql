-- Purpose: what recorded answers may name: every row of a build's sources, and why it was dropped.
-- Grain: one row per row of a source.
WITH rejected AS (
    SELECT row_id, reason || ': ' || detail AS why
    FROM rejections
    WHERE config_id = $config_id AND stage IN ('read', 'prompt_gate') AND settings_id = ''
)
SELECT source, "row", "key", language, prompt_id, text_id,
    if(is_read, coalesce(dropped.why, gated.why), 'it lies beyond the limit') AS why
FROM (FROM source_rows WHERE config_id = $config_id) AS named
LEFT JOIN rejected AS dropped ON dropped.row_id = content_id('source_row', [source, "row"])
LEFT JOIN rejected AS gated ON gated.row_id = named.prompt_id
