-- Purpose: the mean over the build's reward models of a completion's rank among those of its prompt; 1 is the lowest
--          reward, equal rewards share the middle of their ranks.
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
ranked AS (
    SELECT
        completion_id,
        rank() OVER (PARTITION BY prompt_id, reward_fingerprint ORDER BY reward)
            + (count(*) OVER (PARTITION BY prompt_id, reward_fingerprint, reward) - 1) / 2 AS rank
    FROM scored
)
SELECT completion_id, avg(rank) AS reward
FROM ranked
GROUP BY completion_id
