-- Purpose: which teacher wins where: how often its answer has the highest reward of its prompt, by how much, and what always
--          taking the best single teacher of a language would have cost.
-- Grain: one row per language and teacher. A win that several teachers share counts in parts. margin is the mean lead of a
--        teacher's wins over the best answer of another teacher; regret is what the language's prompts lose on average when
--        this teacher alone answers (the prompts that it answered); is_best_single marks the teacher with the least regret.
WITH answers AS (
    SELECT prompt_id, language, teacher, max(reward) AS reward
    FROM scored_completions
    WHERE origin <> 'translated'
    GROUP BY prompt_id, language, teacher
),
ranked AS (
    SELECT
        *,
        max(reward) OVER prompt AS best,
        rank() OVER (PARTITION BY prompt_id ORDER BY reward DESC) = 1 AS is_best,
        max(reward) OVER (
            PARTITION BY prompt_id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW
        ) AS runner_up
    FROM answers
    WINDOW prompt AS (PARTITION BY prompt_id)
),
counted AS (
    SELECT *, if(is_best, 1 / sum(is_best::INTEGER) OVER (PARTITION BY prompt_id), 0) AS win FROM ranked
),
sizes AS (
    SELECT language, teacher, count(*) AS num_completions
    FROM scored_completions
    WHERE origin <> 'translated'
    GROUP BY language, teacher
),
teachers AS (
    SELECT
        language,
        teacher,
        count(*) AS num_prompts,
        sum(win) / (SELECT count(DISTINCT prompt_id) FROM answers AS others WHERE others.language = counted.language) AS win_share,
        avg(reward) AS mean_reward,
        avg(reward - runner_up) FILTER (is_best) AS margin,
        avg(best - reward) AS regret
    FROM counted
    GROUP BY language, teacher
)
SELECT
    language,
    teacher,
    num_completions,
    num_prompts,
    win_share,
    mean_reward,
    margin,
    regret,
    row_number() OVER (PARTITION BY language ORDER BY num_prompts DESC, regret, teacher) = 1 AS is_best_single
FROM teachers
JOIN sizes USING (language, teacher)
