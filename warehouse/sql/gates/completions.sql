-- Purpose: the completions of the build that fail its gates, each with the first reason that applies.
-- Grain: one row of rejections per failing completion.
-- The tags of a translator are no matter here: it is judged by them, and by what it translates, when it has answered.
WITH stripped AS (
    SELECT *, regexp_replace(text, $quoted_code, $hidden_code, 'g') AS prose, text = '' AND coalesce(reasoning, '') <> '' AS is_thinking
    FROM build_completions
),
marked AS (
    SELECT
        *,
        CASE
            WHEN regexp_matches(prose, $reasoning_marks) THEN trim(regexp_extract(prose, $reasoning_marks), E' \t\r\n')
            WHEN contains(prose, $opening_tags[teacher]) THEN $opening_tags[teacher]
            WHEN contains(prose, $closing_tags[teacher]) THEN $closing_tags[teacher]
        END AS reasoning_mark
    FROM stripped
),
judged AS (
    SELECT
        *,
        CASE
            WHEN $stray_reasoning AND reasoning_mark IS NOT NULL THEN 'stray_reasoning'
            WHEN $stray_reasoning AND is_thinking AND finish_reason = 'length' THEN 'stray_reasoning'
            WHEN NOT regexp_matches(text, '[^\s\p{Z}\p{Cc}\p{Cf}]') THEN 'empty'
            WHEN $truncated AND finish_reason = 'length' THEN 'truncated'
            WHEN num_chars < $min_chars THEN 'too_short'
            WHEN num_chars > $max_chars THEN 'too_long'
            -- lid.176 knows one Chinese: zh-Hant is compared as zh
            WHEN $language AND detected_language <> split_part(language, '-', 1)
                AND language_score >= $min_language_score THEN 'wrong_language'
            WHEN $language AND script_share < $min_script_share THEN 'wrong_script'
            WHEN repetition > $max_repetition THEN 'repetition'
            WHEN $refusals IS NOT NULL AND regexp_matches(text, $refusals) THEN 'refusal'
        END AS reason
    FROM marked
)
SELECT
    $config_id AS config_id,
    completion_id AS row_id,
    'gate' AS stage,
    '' AS settings_id,
    reason,
    CASE reason
        WHEN 'stray_reasoning' THEN if(
            reasoning_mark IS NULL, 'the thinking was cut off or never closed', format('thinks aloud: {}', reasoning_mark)
        )
        WHEN 'empty' THEN if(is_thinking, 'all of it was reasoning; no answer follows', 'no visible character')
        WHEN 'truncated' THEN format('stopped at the limit of {} tokens', num_completion_tokens)
        WHEN 'too_short' THEN format('{} chars, at least {} needed', num_chars, $min_chars)
        WHEN 'too_long' THEN format('{} chars, at most {} allowed', num_chars, $max_chars)
        WHEN 'wrong_language'
            THEN format('detected {} with score {:.2f}, expected {}', detected_language, language_score, language)
        WHEN 'wrong_script'
            THEN format('{:.0f}% of the letters are in the script of {}, at least {:.0f}% needed', 100 * script_share, language, 100 * $min_script_share)
        WHEN 'repetition' THEN format('repetition {:.2f}, at most {:.2f} allowed', repetition, $max_repetition)
        WHEN 'refusal' THEN format('refuses: {}', regexp_extract(text, $refusals))
    END AS detail,
    language,
    model
FROM judged
WHERE reason IS NOT NULL
