-- Purpose: which teacher wins where: how often its answer has the highest reward of its prompt, by how much, and what always
--          taking the best single teacher of a language would have cost.
-- Grain: one row per language and teacher. A win that several teachers share counts in parts. margin is the mean lead of a
--        teacher's wins over the best answer of another teacher; regret is what the language's prompts lose on average when
--        this teacher alone answers (the prompts that it answered); is_best_single marks the teacher with the least regret.
-- Answers are grouped by prompt once, into lists; teachers are numbers there, since names would take twice the memory.
WITH numbers AS MATERIALIZED (
    SELECT teacher, row_number() OVER (ORDER BY teacher)::USMALLINT AS number
    FROM (SELECT DISTINCT teacher FROM build_teachers)
),
prompts AS NOT MATERIALIZED (
    SELECT
        any_value(language) AS language,
        max(reward, 2) AS highest,
        list(number) AS teachers,
        list(reward) AS rewards,
        -- As many different bits as answers: so many teachers, with one answer each.
        bit_count(bit_or(1::UBIGINT << (number % 60))) = count(*) AS answers_once
    FROM scored_without_text
    JOIN numbers USING (teacher)
    WHERE origin <> 'translated'
    GROUP BY prompt_id
),
-- A teacher has the best of its answers to a prompt.
answers AS NOT MATERIALIZED (
    SELECT
        language,
        highest,
        CASE WHEN answers_once THEN teachers ELSE list_distinct(teachers) END AS numbers,
        CASE WHEN answers_once THEN rewards ELSE list_transform(
            numbers, lambda own: list_max(list_where(rewards, list_transform(teachers, lambda number: number = own)))
        ) END AS bests,
        CASE WHEN NOT answers_once THEN list_transform(
            numbers, lambda own: len(list_filter(teachers, lambda number: number = own))
        ) END AS nums,
        answers_once AND (len(highest) = 1 OR highest[1] > highest[2]) AS is_plain
    FROM prompts
),
leads AS NOT MATERIALIZED (
    SELECT
        *,
        highest[1] AS best,
        CASE WHEN is_plain THEN 1 ELSE len(list_filter(bests, lambda reward: reward = best)) END AS num_best,
        CASE WHEN is_plain THEN highest[2]
            WHEN num_best > 1 THEN best
            ELSE list_max(list_filter(bests, lambda reward: reward < best))
        END AS runner_up
    FROM answers
),
rows AS NOT MATERIALIZED (
    SELECT
        language,
        best,
        num_best,
        runner_up,
        unnest(numbers) AS number,
        unnest(bests) AS reward,
        unnest(nums) AS num_completions,
        generate_subscripts(numbers, 1) AS position
    FROM leads
),
teachers AS (
    SELECT
        language,
        number,
        sum(coalesce(num_completions, 1))::BIGINT AS num_completions,
        count(*) AS num_prompts,
        count(*) FILTER (position = 1) AS num_first,
        coalesce(sum(1 / num_best) FILTER (reward = best), 0) AS num_wins,
        avg(reward) AS mean_reward,
        avg(reward - runner_up) FILTER (reward = best) AS margin,
        avg(best - reward) AS regret
    FROM rows
    GROUP BY language, number
)
SELECT
    language,
    teacher,
    num_completions,
    num_prompts,
    num_wins / sum(num_first) OVER (PARTITION BY language) AS win_share,
    mean_reward,
    margin,
    regret,
    row_number() OVER (PARTITION BY language ORDER BY num_prompts DESC, regret, teacher) = 1 AS is_best_single
FROM teachers
JOIN numbers USING (number)
