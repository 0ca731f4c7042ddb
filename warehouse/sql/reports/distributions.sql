-- Purpose: how rewards and lengths of the teachers' kept answers are distributed. Beyond the 1st and 99th percentile of all
--          teachers answers fall into the outermost bins.
-- Grain: one row per measure (reward, chars), teacher and bin that is not empty; 40 bins, numbered from 0, span low to high.
WITH answers AS (
    SELECT teacher, unnest([{measure: 'reward', value: reward}, {measure: 'chars', value: num_chars}], recursive := true)
    FROM scored_without_text
    WHERE origin <> 'translated'
),
spans AS (
    SELECT measure, quantile_cont(value, 0.01) AS low, quantile_cont(value, 0.99) AS high
    FROM answers
    GROUP BY measure
),
placed AS (
    SELECT
        *,
        if(high > low, least(greatest(floor((value - low) / (high - low) * 40), 0), 39), 0)::INTEGER AS bin
    FROM answers
    JOIN spans USING (measure)
),
middles AS (
    SELECT measure, teacher, median(value) AS median, avg(value) AS mean, count(*) AS num_answers
    FROM answers
    GROUP BY measure, teacher
)
SELECT measure, teacher, low, high, median, mean, num_answers, bin, count(*) AS num
FROM placed
JOIN middles USING (measure, teacher)
GROUP BY ALL
ORDER BY measure, teacher, bin
