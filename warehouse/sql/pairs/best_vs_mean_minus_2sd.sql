-- Purpose: the highest reward of a prompt against the one nearest to mean - 2 standard deviations of the prompt's rewards
--          (CroCo): a bad answer, but no outlier. Population deviation; of equally near ones the lower reward, then the
--          lower id. Distances are rounded, since sums of floats depend on their order.
-- Grain: one row per proposed pair, the nearest of a prompt at position 1.
WITH pool AS (
    SELECT
        prompt_id,
        any_value(language) AS language,
        avg(reward) - 2 * stddev_pop(reward) AS target,
        list({'order': -reward, 'id': completion_id, 'num_chars': num_chars, 'round': round}) AS answers
    FROM scored_without_text
    WHERE origin <> 'translated'
    GROUP BY prompt_id
    HAVING count(*) > 1
),
best AS (
    SELECT *, list_min(answers) AS best FROM pool
),
ranked AS (
    SELECT
        *,
        list_sort(list_transform(
            list_filter(answers, lambda answer: answer.id <> best.id),
            lambda answer: {
                'distance': round(abs(-answer.order - target), 9),
                'reward': -answer.order,
                'id': answer.id,
                'num_chars': answer.num_chars,
                'round': answer.round
            }
        )) AS nearest
    FROM best
)
SELECT
    prompt_id,
    language,
    position,
    best.id AS chosen_id,
    nearest[position].id AS rejected_id,
    -best.order AS chosen_reward,
    nearest[position].reward AS rejected_reward,
    best.num_chars AS chosen_chars,
    nearest[position].num_chars AS rejected_chars,
    greatest(best.round, nearest[position].round) AS round
FROM ranked, range(1, 1 + $pairs_per_prompt) AS positions(position)
WHERE position <= len(nearest)
