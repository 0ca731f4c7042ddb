-- Purpose: the preference rows of a build, ready for training: a prompt and two answers as conversations.
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
    exported_chosen.teacher AS chosen_teacher,
    chosen.origin AS chosen_origin,
    exported_chosen.reward AS chosen_reward,
    pairs.rejected_id,
    exported_rejected.teacher AS rejected_teacher,
    rejected.origin AS rejected_origin,
    rejected.translator AS rejected_translator,
    exported_rejected.reward AS rejected_reward,
    prompts.source,
    prompts.source_row,
    prompts.split
FROM lake.pairs AS pairs
JOIN exported AS exported_chosen ON exported_chosen.completion_id = pairs.chosen_id
JOIN exported AS exported_rejected ON exported_rejected.completion_id = pairs.rejected_id
JOIN lake.completions AS chosen ON chosen.completion_id = pairs.chosen_id
JOIN lake.completions AS rejected ON rejected.completion_id = pairs.rejected_id
JOIN lake.prompts AS prompts ON prompts.prompt_id = pairs.prompt_id
WHERE pairs.config_id = $config_id
