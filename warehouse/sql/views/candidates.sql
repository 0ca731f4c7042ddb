-- Purpose: what routing and pairing choose from: the kept completions of the build with their (combined) reward.
--          Translated completions are the rejected side of a pair at most.
-- Grain: one row per kept completion that every reward model of the build has scored.
SELECT
    completion_id,
    completions.prompt_id,
    completions.root_id,
    completions.language,
    completions.split,
    completions.teacher,
    completions.model_fingerprint,
    completions.origin,
    completions.translator,
    completions.parent_id,
    completions.round,
    completions.sample_index,
    completions.text,
    build_rewards.reward,
    completions.num_chars,
    completions.num_completion_tokens,
    completions.detected_language,
    completions.language_score
FROM kept_completions AS completions
JOIN build_rewards USING (completion_id)
