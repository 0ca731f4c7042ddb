-- Purpose: the best answer given in the language against a translated answer to the same prompt (RLHF Can Speak Many
--          Languages).
-- Grain: one row per translated candidate whose prompt has an answer; the widest of a prompt at position 1.
WITH best AS (
    SELECT
        prompt_id,
        min({'order': -reward, 'id': completion_id, 'num_chars': num_chars, 'round': round}) AS best
    FROM scored_without_text
    WHERE origin <> 'translated'
    GROUP BY prompt_id
)
SELECT
    prompt_id,
    translated.language,
    row_number() OVER (PARTITION BY prompt_id ORDER BY translated.reward, translated.completion_id) AS position,
    best.best.id AS chosen_id,
    translated.completion_id AS rejected_id,
    -best.best.order AS chosen_reward,
    translated.reward AS rejected_reward,
    best.best.num_chars AS chosen_chars,
    translated.num_chars AS rejected_chars,
    greatest(best.best.round, translated.round) AS round
FROM scored_without_text AS translated
JOIN best USING (prompt_id)
WHERE translated.origin = 'translated'
