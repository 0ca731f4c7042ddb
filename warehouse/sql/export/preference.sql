-- Purpose: the preference rows of a build by their ids.
-- Grain: one row per pair.
SELECT language, strategy, margin, round, pair_id, prompt_id, chosen_id, rejected_id
FROM lake.pairs
WHERE config_id = $config_id
