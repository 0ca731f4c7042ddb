-- Purpose: what routing and pairing choose from: the kept completions of the build with their (combined) reward.
--          Translated completions are the rejected side of a pair at most.
-- Grain: one row per kept completion that every reward model of the build has scored.
SELECT
    completions.completion_id,
    completions.prompt_id,
    prompts.root_id,
    completions.language,
    prompts.split,
    completions.teacher,
    completions.model_fingerprint,
    completions.origin,
    completions.translator,
    completions.parent_id,
    completions.round,
    completions.sample_index,
    completions.text,
    completions.reward,
    completions.num_chars,
    completions.num_completion_tokens,
    completions.detected_language,
    completions.language_score,
    completions.script_share
FROM $scored AS completions
JOIN split_prompts AS prompts ON prompts.prompt_id = completions.prompt_id
