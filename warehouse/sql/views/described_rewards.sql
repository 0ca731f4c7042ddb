-- Purpose: the rewards of the build's reward model, each beside what its completion is, without the texts.
-- Grain: one row per completion of the warehouse that this model has scored. Those up to row $indexed of the rewards are
--        in the index (see indexed_rewards); without an index, all are joined here.
SELECT completions.* EXCLUDE (text, reasoning), rewards.reward
FROM completions
JOIN (
    SELECT completion_id, reward
    FROM rewards
    WHERE reward_fingerprint = $reward_fingerprint AND ($indexed IS NULL OR rowid > $indexed)
) AS rewards ON rewards.completion_id = completions.completion_id
