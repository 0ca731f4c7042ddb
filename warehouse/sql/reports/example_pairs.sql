-- Purpose: pairs to look at: of each language the one with the smallest id, which is as good as drawn by chance.
-- Grain: one row per language that has pairs; those that stand against the reward order are left out.
WITH chosen_pairs AS (
    SELECT language, min(pair_id) AS pair_id
    FROM pairs
    WHERE config_id = $config_id AND coalesce(margin, 0) >= 0
    GROUP BY language
)
SELECT
    pairs.language,
    pairs.strategy,
    pairs.margin,
    prompts.messages[-1].content AS prompt,
    chosen.model AS chosen_model,
    chosen.text AS chosen,
    rejected.model AS rejected_model,
    rejected.origin AS rejected_origin,
    rejected.text AS rejected
FROM chosen_pairs
JOIN pairs ON pairs.config_id = $config_id AND pairs.pair_id = chosen_pairs.pair_id
JOIN prompts ON prompts.prompt_id = pairs.prompt_id
JOIN completions AS chosen ON chosen.completion_id = pairs.chosen_id
JOIN completions AS rejected ON rejected.completion_id = pairs.rejected_id
ORDER BY pairs.language
