-- Purpose: the preference rows of a build, with digests where the prompt and the two answers will stand.
-- Grain: one row per pair.
SELECT
    pairs.language,
    pairs.strategy,
    pairs.margin,
    pairs.round,
    pairs.pair_id,
    pairs.prompt_id,
    prompts.root_id,
    prompts.translator AS prompt_translator,
    pairs.chosen_id,
    chosen.teacher AS chosen_teacher,
    chosen.origin AS chosen_origin,
    chosen.reward AS chosen_reward,
    pairs.rejected_id,
    rejected.teacher AS rejected_teacher,
    rejected.origin AS rejected_origin,
    rejected.translator AS rejected_translator,
    rejected.reward AS rejected_reward,
    prompts.source,
    prompts.source_row,
    prompts.split,
    prompt_digests.digest AS prompt_digest,
    chosen_digests.digest AS chosen_digest,
    rejected_digests.digest AS rejected_digest
FROM lake.pairs AS pairs
JOIN exported AS chosen ON chosen.completion_id = pairs.chosen_id
JOIN exported AS rejected ON rejected.completion_id = pairs.rejected_id
JOIN lake.prompts AS prompts ON prompts.prompt_id = pairs.prompt_id
JOIN digests AS prompt_digests ON prompt_digests.id = pairs.prompt_id
JOIN digests AS chosen_digests ON chosen_digests.id = pairs.chosen_id
JOIN digests AS rejected_digests ON rejected_digests.id = pairs.rejected_id
WHERE pairs.config_id = $config_id
