-- Purpose: which teacher wins where: how often its answer has the highest reward of its prompt, by how much, and what always
--          taking the best single teacher of a language would have cost.
-- Grain: one row per language and teacher. A win that several teachers share counts in parts. margin is the mean lead of a
--        teacher's wins over the best answer of another teacher; regret is what the language's prompts lose on average when
--        this teacher alone answers (the prompts that it answered); is_best_single marks the teacher with the least regret.
WITH answers AS (
    SELECT prompt_id, language, teacher, max(reward) AS reward, count(*) AS num_completions
    FROM scored_without_text
    WHERE origin <> 'translated'
    GROUP BY prompt_id, language, teacher
),
leads AS (
    SELECT
        prompt_id,
        rewards[1] AS best,
        rewards[2] AS runner_up,
        len(list_filter(rewards, lambda reward: reward = rewards[1])) AS num_best
    FROM (SELECT prompt_id, list(reward ORDER BY reward DESC) AS rewards FROM answers GROUP BY prompt_id)
),
sizes AS (
    SELECT language, count(DISTINCT prompt_id) AS num_answered FROM answers GROUP BY language
),
teachers AS (
    SELECT
        language,
        teacher,
        sum(num_completions)::BIGINT AS num_completions,
        count(*) AS num_prompts,
        coalesce(sum(1 / num_best) FILTER (reward = best), 0) AS num_wins,
        avg(reward) AS mean_reward,
        avg(reward - runner_up) FILTER (reward = best) AS margin,
        avg(best - reward) AS regret
    FROM answers
    JOIN leads USING (prompt_id)
    GROUP BY language, teacher
)
SELECT
    language,
    teacher,
    num_completions,
    num_prompts,
    num_wins / num_answered AS win_share,
    mean_reward,
    margin,
    regret,
    row_number() OVER (PARTITION BY language ORDER BY num_prompts DESC, regret, teacher) = 1 AS is_best_single
FROM teachers
JOIN sizes USING (language)
