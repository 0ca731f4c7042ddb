-- Purpose: what the pairs to look at say. The ids are constants in lists, for which a scan tests every row before it reads
--          a text; it would read all texts for a join.
-- Grain: one row per pair of the list of pairs, each with prompt_id, chosen_id and rejected_id.
WITH answers AS (
    SELECT completion_id, model, origin, text FROM completions WHERE list_contains($completion_ids, completion_id)
),
asked AS (
    SELECT prompt_id, messages[-1].content AS prompt FROM prompts WHERE list_contains($prompt_ids, prompt_id)
)
SELECT
    asked.prompt_id,
    chosen.completion_id AS chosen_id,
    rejected.completion_id AS rejected_id,
    asked.prompt,
    chosen.model AS chosen_model,
    chosen.text AS chosen,
    rejected.model AS rejected_model,
    rejected.origin AS rejected_origin,
    rejected.text AS rejected
FROM (SELECT unnest($prompt_ids) AS prompt_id, unnest($chosen_ids) AS chosen_id, unnest($rejected_ids) AS rejected_id) AS pairs
JOIN asked ON asked.prompt_id = pairs.prompt_id
JOIN answers AS chosen ON chosen.completion_id = pairs.chosen_id
JOIN answers AS rejected ON rejected.completion_id = pairs.rejected_id
