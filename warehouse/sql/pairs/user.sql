-- Purpose: the pairs that a user's own SELECT proposes, with what the guards look at.
-- Grain: one row per proposed pair, the widest of a prompt at position 1.
SELECT
    proposals.prompt_id,
    chosen.language,
    row_number() OVER (
        PARTITION BY proposals.prompt_id
        ORDER BY chosen.reward - rejected.reward DESC, proposals.chosen_id, proposals.rejected_id
    ) AS position,
    proposals.chosen_id,
    proposals.rejected_id,
    chosen.reward AS chosen_reward,
    rejected.reward AS rejected_reward,
    chosen.num_chars AS chosen_chars,
    rejected.num_chars AS rejected_chars,
    greatest(chosen.round, rejected.round) AS round
FROM $proposals AS proposals
JOIN scored_without_text AS chosen ON chosen.completion_id = proposals.chosen_id
JOIN scored_without_text AS rejected ON rejected.completion_id = proposals.rejected_id
