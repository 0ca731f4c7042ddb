-- Purpose: from which models a model was made, over any number of trainings and merges. A model is its own ancestor.
-- Grain: one row per model of the warehouse and ancestor.
WITH RECURSIVE walk AS (
    SELECT checkpoint_id, checkpoint_id AS ancestor_id FROM checkpoints
    UNION
    SELECT walk.checkpoint_id, unnest(checkpoints.parents)
    FROM walk
    JOIN checkpoints ON checkpoints.checkpoint_id = walk.ancestor_id
)
SELECT checkpoint_id, ancestor_id FROM walk
