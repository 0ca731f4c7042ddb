-- Purpose: the rewards of the build's reward model as far as the index goes: up to row $indexed of the table.
-- Grain: one row per completion of the warehouse that this model has scored.
SELECT * EXCLUDE (reward_fingerprint, reward_row)
FROM reward_index
WHERE reward_fingerprint = $reward_fingerprint AND reward_row <= $indexed
