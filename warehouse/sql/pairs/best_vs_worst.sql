-- Purpose: the highest against the lowest reward of a prompt (Aya Expanse, offline DPO); with several pairs per prompt
--          also the second against the second lowest, and so on. Of equal rewards the lower id counts as the better.
-- Grain: one row per proposed pair, the widest of a prompt at position 1.
WITH ranked AS (
    SELECT
        prompt_id,
        any_value(language) AS language,
        count(*) AS num_candidates,
        min({'order': -reward, 'id': completion_id, 'num_chars': num_chars, 'round': round}, $pairs_per_prompt) AS best,
        max({'order': -reward, 'id': completion_id, 'num_chars': num_chars, 'round': round}, $pairs_per_prompt) AS worst
    FROM scored_without_text
    WHERE origin <> 'translated'
    GROUP BY prompt_id
)
SELECT
    prompt_id,
    language,
    position,
    best[position].id AS chosen_id,
    worst[position].id AS rejected_id,
    -best[position].order AS chosen_reward,
    -worst[position].order AS rejected_reward,
    best[position].num_chars AS chosen_chars,
    worst[position].num_chars AS rejected_chars,
    greatest(best[position].round, worst[position].round) AS round
FROM ranked, range(1, 1 + $pairs_per_prompt) AS positions(position)
WHERE position <= num_candidates // 2
