-- Purpose: the games that a reward model's scores have not decided yet, where it has scored both completions.
-- Grain: one row per game.
SELECT games.* EXCLUDE (messages, text_a, text_b), scores_a.reward AS score_a, scores_b.reward AS score_b
FROM games
JOIN rewards AS scores_a
    ON scores_a.completion_id = games.completion_a AND scores_a.reward_fingerprint = $reward
JOIN rewards AS scores_b
    ON scores_b.completion_id = games.completion_b AND scores_b.reward_fingerprint = $reward
ANTI JOIN (
    SELECT completion_a, completion_b, "order"
    FROM verdicts
    WHERE judge_fingerprint = $judge
) AS decided USING (completion_a, completion_b, "order")
