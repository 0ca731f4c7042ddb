-- Purpose: the kept completions of the build with their (combined) reward: candidates less what only their prompts know,
--          for shipped routers and strategies, which need no join with the prompts.
-- Grain: one row per kept completion that every reward model of the build has scored.
SELECT completions.*, build_rewards.reward
FROM kept_completions AS completions
JOIN build_rewards ON build_rewards.completion_id = completions.completion_id
