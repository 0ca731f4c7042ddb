-- Purpose: the preference rows of build $1, ready for training: a prompt and two answers as conversations.
-- Grain: one row per pair.
SELECT
    prompts.messages AS prompt,
    [{'role': 'assistant', 'content': chosen.text}] AS chosen,
    [{'role': 'assistant', 'content': rejected.text}] AS rejected,
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
    prompts.split
FROM lake.pairs AS pairs
JOIN candidates AS chosen ON chosen.completion_id = pairs.chosen_id
JOIN candidates AS rejected ON rejected.completion_id = pairs.rejected_id
JOIN lake.prompts AS prompts ON prompts.prompt_id = pairs.prompt_id
WHERE pairs.config_id = $1
