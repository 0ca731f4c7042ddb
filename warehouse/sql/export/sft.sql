-- Purpose: the SFT rows of build $1, ready for training: the prompt, and the selected completion as its last turn.
-- Grain: one row per selection.
SELECT
    list_append(prompts.messages, {'role': 'assistant', 'content': candidates.text}) AS messages,
    candidates.language,
    candidates.prompt_id,
    candidates.root_id,
    candidates.completion_id,
    candidates.teacher,
    candidates.origin,
    prompts.translator AS prompt_translator,
    candidates.translator,
    candidates.reward,
    selections.router,
    candidates.round,
    prompts.source,
    prompts.source_row,
    prompts.split
FROM lake.selections AS selections
JOIN candidates ON candidates.completion_id = selections.completion_id
JOIN lake.prompts AS prompts ON prompts.prompt_id = selections.prompt_id
WHERE selections.config_id = $1
