-- Purpose: the rewards of a build with one reward model, as they are.
-- Grain: one row per scored completion.
SELECT completion_id, reward
FROM rewards
WHERE reward_fingerprint IN (
    SELECT settings_id FROM build_models WHERE config_id = $config_id AND role = 'reward'
)
