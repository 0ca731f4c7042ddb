-- Purpose: recorded answers that no row of their file joins any more, so that the build is without them.
-- Grain: one row per completion.
SELECT row_id AS completion_id FROM rejections WHERE config_id = $config_id AND stage = 'join'
