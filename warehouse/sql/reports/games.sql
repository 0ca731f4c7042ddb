-- Purpose: every game of an evaluation with its verdict, if there is one yet, and the lengths of both answers.
-- Grain: one row per game. The verdict is about completions a and b, and is_mirrored says that a is the second model's.
SELECT
    games.language,
    games.root_id,
    games.prompt_id,
    games."order",
    games.is_mirrored,
    verdicts.verdict,
    length(games.text_a) AS length_a,
    length(games.text_b) AS length_b
FROM games
LEFT JOIN verdicts
    ON verdicts.completion_a = games.completion_a
    AND verdicts.completion_b = games.completion_b
    AND verdicts."order" = games."order"
    AND verdicts.judge_fingerprint = $judge
ORDER BY games.language, games.root_id, games.prompt_id, games.game_id
