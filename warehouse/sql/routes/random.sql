-- Purpose: random routing, the baseline: a teacher drawn evenly per prompt, then one of its samples; the draw is a hash
--          of the seed, so that it is the same on every machine.
-- Grain: one row per prompt.
SELECT
    prompt_id,
    arg_min(
        completion_id,
        {
            'teacher': content_id('route', json_array($seed, prompt_id, teacher)),
            'sample': content_id('route', json_array($seed, completion_id))
        }
    ) AS completion_id
FROM scored_without_text
WHERE origin <> 'translated'
GROUP BY prompt_id
