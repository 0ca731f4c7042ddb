-- Purpose: an answer of the strong teacher against one of the weak teacher (delta learning): the strong one's best
--          against the weak one's worst, its second best against the second worst, and so on.
-- Grain: one row per proposed pair, the widest of a prompt at position 1.
WITH ranked AS (
    SELECT
        prompt_id,
        any_value(language) AS language,
        min(
            {'order': -reward, 'id': completion_id, 'num_chars': num_chars, 'round': round}, $pairs_per_prompt
        ) FILTER (teacher = $strong) AS strong,
        max(
            {'order': -reward, 'id': completion_id, 'num_chars': num_chars, 'round': round}, $pairs_per_prompt
        ) FILTER (teacher = $weak) AS weak
    FROM scored_without_text
    WHERE origin <> 'translated' AND teacher IN ($strong, $weak)
    GROUP BY prompt_id
)
SELECT
    prompt_id,
    language,
    position,
    strong[position].id AS chosen_id,
    weak[position].id AS rejected_id,
    -strong[position].order AS chosen_reward,
    -weak[position].order AS rejected_reward,
    strong[position].num_chars AS chosen_chars,
    weak[position].num_chars AS rejected_chars,
    greatest(strong[position].round, weak[position].round) AS round
FROM ranked, range(1, 1 + $pairs_per_prompt) AS positions(position)
WHERE position <= len(strong) AND position <= len(weak)
