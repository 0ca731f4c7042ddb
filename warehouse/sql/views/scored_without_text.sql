-- Purpose: scored_completions less their texts, for queries that need none; of a build with one reward model it is read from
--          the reward index.
-- Grain: one row per kept completion that every reward model of the build has scored.
SELECT * EXCLUDE (text, reasoning) FROM scored_completions
