-- Purpose: the mean over the build's reward models of a completion's z-score among those of its prompt (population
--          deviation; 0 where all rewards are equal). Rounded, since sums of floats depend on their order, and an equal
--          warehouse must give equal rewards.
-- Grain: one row per kept completion that every reward model of the build has scored.
WITH models AS NOT MATERIALIZED (
    SELECT DISTINCT settings_id FROM build_models WHERE config_id = $config_id AND role = 'reward'
),
scored AS (
    SELECT completion_id, completions.prompt_id, rewards.reward_fingerprint, rewards.reward
    FROM kept_completions AS completions
    JOIN rewards USING (completion_id)
    JOIN models ON models.settings_id = rewards.reward_fingerprint
    QUALIFY count(*) OVER (PARTITION BY completion_id) = (SELECT count(*) FROM models)
),
standardised AS (
    SELECT
        completion_id,
        CASE WHEN max(reward) OVER prompt > min(reward) OVER prompt
            THEN (reward - avg(reward) OVER prompt) / stddev_pop(reward) OVER prompt
            ELSE 0
        END AS zscore
    FROM scored
    WINDOW prompt AS (PARTITION BY prompt_id, reward_fingerprint)
)
SELECT completion_id, round(avg(zscore), 9) AS reward
FROM standardised
GROUP BY completion_id
