-- Purpose: which trained models stand behind the steps of the build's last policy, or, of a build without a policy, which were
--          trained on its exports. A merge stands for the models that it was made of, but for the policy that its step
--          began with.
-- Grain: one row per trained model, in the order of the steps. label is the step's name, or null.
WITH RECURSIVE policy AS (
    SELECT step, place, checkpoint_id, parent_id
    FROM policy_steps
),
reached AS (
    SELECT policy.step, policy.place, policy.parent_id AS began_with, checkpoints.checkpoint_id, kind, parents, path, metrics
    FROM policy
    JOIN checkpoints ON checkpoints.checkpoint_id = policy.checkpoint_id
    UNION
    SELECT step, place, began_with, found.checkpoint_id, found.kind, found.parents, found.path,
        found.metrics
    FROM (SELECT * EXCLUDE (parents), unnest(parents) AS parent FROM reached WHERE kind = 'merge') AS merges
    JOIN checkpoints AS found ON found.checkpoint_id = merges.parent
    WHERE merges.parent IS DISTINCT FROM began_with
),
trained AS (
    SELECT step AS label, place, checkpoint_id, path, metrics FROM reached WHERE kind IN ('sft', 'preference')
    UNION ALL
    SELECT NULL, NULL, checkpoint_id, path, metrics
    FROM checkpoints
    WHERE kind IN ('sft', 'preference')
        AND export_id IN (SELECT export_id FROM exports WHERE config_id = $config_id)
        AND NOT EXISTS (FROM policy)
)
SELECT
    label,
    path,
    (metrics ->> '$.num_steps')::BIGINT AS num_steps,
    (metrics ->> '$.num_tokens')::BIGINT AS num_tokens,
    (metrics ->> '$.seconds')::DOUBLE AS seconds
FROM trained
ORDER BY place, path
