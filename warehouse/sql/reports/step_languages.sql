-- Purpose: how the policy that was kept answers held-out prompts, and how often it wins against the base.
-- Grain: one row per language, and one (all) for the average over languages, last.
WITH kept AS (
    SELECT policy_id, max_by(step, place) AS step
    FROM policy_steps
    WHERE is_kept
    GROUP BY policy_id
)
SELECT scores.* EXCLUDE (policy_id)
FROM step_scores AS scores
JOIN kept ON kept.policy_id = scores.policy_id AND kept.step = scores.step
ORDER BY scores.language = 'all', scores.language
