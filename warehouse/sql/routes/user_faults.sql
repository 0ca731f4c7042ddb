-- Purpose: what is wrong with the selections of a user's router. None means pass.
-- Grain: one row per faulty selection.
SELECT prompt_id, 'completion_id ' || coalesce(completion_id, 'NULL') || ' is not a candidate of this prompt' AS fault
FROM $rows
ANTI JOIN candidates USING (prompt_id, completion_id)
UNION ALL
SELECT prompt_id, 'completion_id is one of ' || count(*) || '; a prompt has one selection'
FROM $rows
GROUP BY prompt_id
HAVING count(*) > 1
UNION ALL
SELECT prompt_id, 'completion_id ' || completion_id || ' is a translated completion, which is never selected'
FROM $rows AS given
SEMI JOIN candidates ON candidates.completion_id = given.completion_id AND candidates.origin = 'translated'
