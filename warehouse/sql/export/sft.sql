-- Purpose: the SFT rows of a build, ready for training: the prompt, and the selected completion as its last turn.
-- Grain: one row per selection.
SELECT
    list_append(prompts.messages, {'role': 'assistant', 'content': completions.text}) AS messages,
    completions.language,
    completions.prompt_id,
    prompts.root_id,
    completions.completion_id,
    exported.teacher,
    completions.origin,
    prompts.translator AS prompt_translator,
    completions.translator,
    exported.reward,
    selections.router,
    completions.round,
    prompts.source,
    prompts.source_row,
    prompts.split
FROM lake.selections AS selections
JOIN exported ON exported.completion_id = selections.completion_id
JOIN lake.completions AS completions ON completions.completion_id = selections.completion_id
JOIN lake.prompts AS prompts ON prompts.prompt_id = selections.prompt_id
WHERE selections.config_id = $config_id
