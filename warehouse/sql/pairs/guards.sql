-- Purpose: judge the proposed pairs of a strategy: one reason for each that is dropped, none for those that are kept. A
--          prompt keeps the first of its pairs that pass; the rest are too many.
-- Grain: one row per proposed pair.
WITH measured AS NOT MATERIALIZED (
    SELECT
        *,
        chosen_reward - rejected_reward AS margin,
        greatest(chosen_chars, rejected_chars) / greatest(least(chosen_chars, rejected_chars), 1) AS length_ratio
    FROM $proposals
),
judged AS NOT MATERIALIZED (
    SELECT
        *,
        CASE
            WHEN margin = 0 AND $ties = 'drop' THEN 'tie'
            WHEN margin < 0 AND NOT $against_reward THEN 'margin_too_small'
            WHEN abs(margin) < $min_margin THEN 'margin_too_small'
            WHEN length_ratio > $max_length_ratio THEN 'length_ratio'
        END AS failure
    FROM measured
),
crowded AS NOT MATERIALIZED (
    SELECT DISTINCT prompt_id FROM $proposals WHERE position > $pairs_per_prompt
),
surplus AS NOT MATERIALIZED (
    SELECT chosen_id, rejected_id
    FROM judged SEMI JOIN crowded USING (prompt_id)
    WHERE failure IS NULL
    QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY position) > $pairs_per_prompt
)
SELECT
    content_id('pair', [$config_id, $label, judged.chosen_id, judged.rejected_id]) AS pair_id,
    judged.prompt_id,
    judged.language,
    judged.chosen_id,
    judged.rejected_id,
    judged.margin,
    judged.round,
    coalesce(judged.failure, CASE WHEN surplus.chosen_id IS NOT NULL THEN 'too_many_pairs' END) AS reason,
    CASE
        WHEN judged.failure = 'tie' THEN format('both rewards are {:g}', judged.chosen_reward)
        WHEN judged.failure = 'margin_too_small' AND $against_reward
            THEN format('rewards {:g} and {:g}: they must be at least {:g} apart',
                judged.chosen_reward, judged.rejected_reward, $min_margin::DOUBLE)
        WHEN judged.failure = 'margin_too_small'
            THEN format('chosen reward {:g}, rejected {:g}: the chosen one must be at least {:g} higher',
                judged.chosen_reward, judged.rejected_reward, $min_margin::DOUBLE)
        WHEN judged.failure = 'length_ratio'
            THEN format('{} and {} chars, at most {:g} times as long allowed',
                judged.chosen_chars, judged.rejected_chars, $max_length_ratio::DOUBLE)
        WHEN surplus.chosen_id IS NOT NULL THEN format('at most {} pairs per prompt allowed', $pairs_per_prompt)
    END AS detail
FROM judged
LEFT JOIN surplus ON surplus.chosen_id = judged.chosen_id AND surplus.rejected_id = judged.rejected_id
