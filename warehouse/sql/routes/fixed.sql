-- Purpose: fixed routing: the teacher that the recipe names for the language, its best sample. A language without a
--          teacher gets no selection.
-- Grain: one row per prompt that this teacher answered.
SELECT prompt_id, arg_min(completion_id, {'order': -reward, 'completion_id': completion_id}) AS completion_id
FROM scored_without_text
WHERE origin <> 'translated' AND teacher = $teachers[language]
GROUP BY prompt_id
