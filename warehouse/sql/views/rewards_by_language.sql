-- Purpose: are rewards and lengths comparable? Rewards are compared within a prompt only; this shows how they lie by language.
-- Grain: one row per language and origin.
SELECT
    language,
    origin,
    count(*) AS num_completions,
    avg(reward) AS mean_reward,
    stddev_pop(reward) AS reward_deviation,
    avg(num_chars) AS mean_chars,
    median(num_chars) AS median_chars,
    corr(reward, num_chars) AS reward_length_correlation
FROM scored_without_text
GROUP BY language, origin
