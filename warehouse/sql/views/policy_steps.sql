-- Purpose: the steps of the policy that was trained last on the build. The table has those of other policies besides, which
--          may have come to the same models.
-- Grain: one row per step.
SELECT *
FROM steps
WHERE policy_id = (SELECT max_by(policy_id, (recorded_at, policy_id)) FROM steps WHERE build_id = $config_id)
