-- Purpose: pairs to look at: of each language the one with the smallest id, which is as good as drawn by chance.
-- Grain: one row per language that has pairs; those that stand against the reward order are left out.
WITH chosen_pairs AS (
    SELECT language, min(pair_id) AS pair_id
    FROM pairs
    WHERE config_id = $config_id AND coalesce(margin, 0) >= 0
    GROUP BY language
)
SELECT pairs.language, pairs.strategy, pairs.margin, pairs.prompt_id, pairs.chosen_id, pairs.rejected_id
FROM chosen_pairs
JOIN pairs ON pairs.config_id = $config_id AND pairs.pair_id = chosen_pairs.pair_id
ORDER BY pairs.language
