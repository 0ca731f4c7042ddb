-- Purpose: the staircase: the steps of the policy that was trained last on the build, each with the average over languages of
--          how it answers held-out prompts.
-- Grain: one row per step, the base first. Scores of a step that was not evaluated are null.
SELECT
    steps.policy_id,
    steps.step,
    steps.checkpoint_id,
    steps.is_kept,
    steps.detail,
    scores.* EXCLUDE (policy_id, step, language)
FROM policy_steps AS steps
LEFT JOIN step_scores AS scores
    ON scores.policy_id = steps.policy_id AND scores.step = steps.step AND scores.language = 'all'
ORDER BY steps.place
