-- Purpose: the games of an evaluation: two models' answers to one prompt, in each order in which a judge sees them. The
--          completion with the smaller id is a, whichever model wrote it; chance decides by the ids and the seed alone.
-- Grain: one row per pair of completions and order.
WITH answers AS NOT MATERIALIZED (
    FROM completions SEMI JOIN kept_prompt_ids USING (prompt_id) ANTI JOIN unjoined_answers USING (completion_id)
)
SELECT
    content_id('game', json_array($judge, completion_a, completion_b, "order")) AS game_id,
    *
FROM (
    SELECT
        *,
        unnest(
            CASE $swap
                WHEN 'both' THEN ['ab', 'ba']
                WHEN 'random' THEN [
                    if(content_id('order', json_array($seed, completion_a, completion_b)) < '8', 'ab', 'ba')
                ]
                ELSE ['ab']
            END
        ) AS "order"
    FROM (
        SELECT
            least(first.completion_id, second.completion_id) AS completion_a,
            greatest(first.completion_id, second.completion_id) AS completion_b,
            first.completion_id > second.completion_id AS is_mirrored,
            prompts.prompt_id,
            prompts.root_id,
            prompts.language,
            prompts.messages,
            if(is_mirrored, second.text, first.text) AS text_a,
            if(is_mirrored, first.text, second.text) AS text_b
        FROM kept_prompts AS prompts
        JOIN answers AS first
            ON first.prompt_id = prompts.prompt_id
        JOIN answers AS second
            ON second.prompt_id = prompts.prompt_id AND second.sample_index = first.sample_index
        WHERE list_contains($languages, prompts.language)
            AND first.settings_id = $first
            AND second.settings_id = $second
            AND first.sample_index < $num_samples
    ) AS pairs
) AS ordered
