-- The shortest of the answers whose reward is within 0.5 of the best one to the same prompt.
SELECT prompt_id, arg_min(completion_id, (num_chars, completion_id)) AS completion_id
FROM (
    SELECT *, max(reward) OVER (PARTITION BY prompt_id) AS best
    FROM candidates
    WHERE origin <> 'translated'
)
WHERE reward >= best - 0.5
GROUP BY prompt_id
