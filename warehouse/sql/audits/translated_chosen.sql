-- Purpose: a translated completion is never selected and never the chosen side of a pair.
-- Grain: one row per selection or pair.
SELECT 'selection of ' || selections.prompt_id AS row, selections.completion_id || ' is translated' AS detail
FROM selections JOIN completions USING (completion_id)
WHERE selections.config_id = $config_id AND completions.origin = 'translated'
UNION ALL
SELECT 'pair ' || pair_id, chosen_id || ' is translated'
FROM pairs JOIN completions ON completions.completion_id = pairs.chosen_id
WHERE pairs.config_id = $config_id AND completions.origin = 'translated'
