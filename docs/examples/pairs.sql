-- Of two answers to one prompt the better one is chosen, where it is no longer than the other.
SELECT chosen.prompt_id, chosen.completion_id AS chosen_id, rejected.completion_id AS rejected_id
FROM candidates AS chosen
JOIN candidates AS rejected USING (prompt_id)
WHERE chosen.reward > rejected.reward AND chosen.num_chars <= rejected.num_chars
