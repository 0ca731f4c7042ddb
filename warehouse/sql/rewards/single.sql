-- Purpose: the rewards of a build with one reward model, as they are.
-- Grain: one row per scored completion.
SELECT completion_id, reward
FROM rewards
WHERE reward_fingerprint = $reward_fingerprint
