-- Purpose: the prompts of the warehouse, each on the side of the split where the build's recipe has it. Of other sources
--          than the recipe's (an evaluation's, say) they stay where they were first read.
-- Grain: one row per prompt.
SELECT * REPLACE (choose_split(root_id, $eval_percents[source]::DOUBLE, split) AS split) FROM prompts
