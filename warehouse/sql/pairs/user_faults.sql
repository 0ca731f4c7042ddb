-- Purpose: what is wrong with the proposals of a user's pair strategy. None means pass.
-- Grain: one row per faulty side of a proposal.
SELECT prompt_id, 'chosen_id ' || coalesce(chosen_id, 'NULL') || ' is not a candidate of this prompt' AS fault
FROM $rows AS given
ANTI JOIN candidates ON candidates.prompt_id = given.prompt_id AND candidates.completion_id = given.chosen_id
UNION ALL
SELECT prompt_id, 'rejected_id ' || coalesce(rejected_id, 'NULL') || ' is not a candidate of this prompt'
FROM $rows AS given
ANTI JOIN candidates ON candidates.prompt_id = given.prompt_id AND candidates.completion_id = given.rejected_id
UNION ALL
SELECT prompt_id, 'chosen_id ' || chosen_id || ' is a translated completion, which is never chosen'
FROM $rows AS given
SEMI JOIN candidates ON candidates.completion_id = given.chosen_id AND candidates.origin = 'translated'
UNION ALL
SELECT prompt_id, 'chosen_id and rejected_id are the same completion ' || chosen_id
FROM $rows
WHERE chosen_id = rejected_id
