-- Purpose: in a pair the chosen reward is above the rejected one (or equal, where ties are kept); strategies that say
--          against_reward are left out.
-- Grain: one row per pair the wrong way round.
WITH strategies AS (
    SELECT
        coalesce(nullif(strategy ->> 'name', ''), strategy ->> 'strategy') AS strategy,
        (strategy ->> 'against_reward')::BOOLEAN AS may_invert,
        strategy ->> 'ties' = 'keep' AS may_tie
    FROM (SELECT unnest((recipe -> '$.pairs')::JSON[]) AS strategy FROM build_recipe)
)
SELECT 'pair ' || pairs.pair_id AS row, pairs.strategy || ', margin ' || (chosen.reward - rejected.reward) AS detail
FROM pairs
JOIN strategies USING (strategy)
JOIN scored_without_text AS chosen ON chosen.completion_id = pairs.chosen_id
JOIN scored_without_text AS rejected ON rejected.completion_id = pairs.rejected_id
WHERE pairs.config_id = $config_id
    AND NOT may_invert
    AND (chosen.reward < rejected.reward OR chosen.reward = rejected.reward AND NOT may_tie)
