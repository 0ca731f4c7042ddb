-- Purpose: reward-based routing (Multilingual Arbitrage): the candidate of the highest reward; of equals the one of the
--          lowest id.
-- Grain: one row per prompt.
SELECT prompt_id, arg_min(completion_id, {'order': -reward, 'completion_id': completion_id}) AS completion_id
FROM scored_without_text
WHERE origin <> 'translated'
GROUP BY prompt_id
