-- Purpose: the prompts and translations of the build in use, and which of them passed its gates.
-- Grain: one row per prompt.
SELECT prompt_id, language, source, parent_id, messages, kept.prompt_id IS NOT NULL AS is_kept
FROM build_prompt_scope
LEFT JOIN kept_prompt_ids AS kept USING (prompt_id)
