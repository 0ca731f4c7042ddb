-- Purpose: the games that a judge has not decided yet, less those set aside.
-- Grain: one row per game.
SELECT games.*
FROM games
ANTI JOIN (
    SELECT completion_a, completion_b, "order"
    FROM verdicts
    WHERE judge_fingerprint = $judge
) AS decided USING (completion_a, completion_b, "order")
ANTI JOIN (
    SELECT row_id
    FROM rejections
    WHERE config_id = '' AND stage = 'judge' AND settings_id = $judge
) AS set_aside ON set_aside.row_id = games.game_id
