-- Purpose: the SFT rows of a build by their ids.
-- Grain: one row per selection.
SELECT prompt_id, completion_id, router
FROM lake.selections
WHERE config_id = $config_id
