-- Purpose: how rewards and lengths of the teachers' kept answers are distributed. Beyond the 1st and 99th percentile of all
--          teachers answers fall into the outermost bins.
-- Grain: one row per measure (reward, chars), teacher and bin that is not empty; 40 bins, numbered from 0, span low to high.
WITH answers AS MATERIALIZED (
    SELECT teacher, reward, num_chars::DOUBLE AS chars
    FROM scored_without_text
    WHERE origin <> 'translated'
),
spans AS MATERIALIZED (
    SELECT quantile_cont(reward, [0.01, 0.99]) AS reward, quantile_cont(chars, [0.01, 0.99]) AS chars FROM answers
),
middles AS (
    SELECT
        teacher,
        count(*) AS num_answers,
        unnest([
            {'measure': 'reward', 'median': median(reward), 'mean': avg(reward)},
            {'measure': 'chars', 'median': median(chars), 'mean': avg(chars)}
        ], recursive := true)
    FROM answers
    GROUP BY teacher
),
-- Both measures at once: only when all is counted is there a row for each.
placed AS (
    SELECT
        teacher,
        (answers.reward - spans.reward[1]) / nullif(spans.reward[2] - spans.reward[1], 0) * 40 AS reward_place,
        (answers.chars - spans.chars[1]) / nullif(spans.chars[2] - spans.chars[1], 0) * 40 AS chars_place
    FROM answers, spans
),
counted AS (
    SELECT
        teacher,
        least(greatest(floor(coalesce(reward_place, 0)), 0), 39)::INTEGER AS reward_bin,
        least(greatest(floor(coalesce(chars_place, 0)), 0), 39)::INTEGER AS chars_bin,
        count(*) AS num
    FROM placed
    GROUP BY ALL
),
bins AS (
    SELECT
        teacher,
        num,
        unnest([
            {'measure': 'reward', 'low': spans.reward[1], 'high': spans.reward[2], 'bin': reward_bin},
            {'measure': 'chars', 'low': spans.chars[1], 'high': spans.chars[2], 'bin': chars_bin}
        ], recursive := true)
    FROM counted, spans
)
SELECT measure, teacher, low, high, median, mean, num_answers, bin, sum(num)::BIGINT AS num
FROM bins
JOIN middles USING (measure, teacher)
GROUP BY ALL
ORDER BY measure, teacher, bin
