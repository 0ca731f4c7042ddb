-- Purpose: the texts of the exported completions. (A filter rather than a join, so that no text is put in a hash table.)
-- Grain: one row per completion.
SELECT completion_id, text
FROM lake.completions
WHERE completion_id IN (SELECT completion_id FROM exported)
