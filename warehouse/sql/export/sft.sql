-- Purpose: the SFT rows of a build, with digests where the prompt and the answer will stand.
-- Grain: one row per selection.
SELECT
    exported.language,
    selections.prompt_id,
    prompts.root_id,
    selections.completion_id,
    exported.teacher,
    exported.origin,
    prompts.translator AS prompt_translator,
    exported.translator,
    exported.reward,
    selections.router,
    exported.round,
    prompts.source,
    prompts.source_row,
    prompts.split,
    prompt_digests.digest AS prompt_digest,
    answer_digests.digest AS answer_digest
FROM lake.selections AS selections
JOIN exported ON exported.completion_id = selections.completion_id
JOIN lake.prompts AS prompts ON prompts.prompt_id = selections.prompt_id
JOIN digests AS prompt_digests ON prompt_digests.id = selections.prompt_id
JOIN digests AS answer_digests ON answer_digests.id = selections.completion_id
WHERE selections.config_id = $config_id
