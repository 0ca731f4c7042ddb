-- Purpose: the prompts of the build that fail its gates, each with the first reason that applies.
-- Grain: one row of rejections per failing prompt.
WITH measured AS (
    SELECT *, list_sum(list_transform(messages, lambda message: length(message.content))) AS num_chars
    FROM build_prompt_scope
),
judged AS (
    SELECT
        *,
        CASE
            WHEN NOT $translates AND NOT list_contains($languages, language) THEN 'other_language'
            WHEN num_chars > $max_chars THEN 'too_long'
            -- lid.176 knows one Chinese: zh-Hant is compared as zh
            WHEN $language AND detected_language <> split_part(language, '-', 1)
                AND language_score >= $min_language_score THEN 'wrong_language'
            WHEN $language AND script_share < $min_script_share THEN 'wrong_script'
        END AS reason
    FROM measured
)
SELECT
    $config_id AS config_id,
    prompt_id AS row_id,
    'prompt_gate' AS stage,
    '' AS settings_id,
    reason,
    CASE reason
        WHEN 'other_language' THEN format('in {}; the recipe''s languages are {}', language, list_aggregate($languages, 'string_agg', ', '))
        WHEN 'too_long' THEN format('{} chars, at most {} allowed', num_chars, $max_chars)
        WHEN 'wrong_script'
            THEN format('{:.0f}% of the letters are in the script of {}, at least {:.0f}% needed', 100 * script_share, language, 100 * $min_script_share)
        WHEN 'wrong_language'
            THEN format('detected {} with score {:.2f}, expected {}', detected_language, language_score, language)
    END AS detail,
    language,
    translator AS model
FROM judged
WHERE reason IS NOT NULL
