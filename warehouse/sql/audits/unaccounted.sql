-- Purpose: what went into a stage came out of it or was rejected; asked of a build that has ended.
-- Grain: one row per stage with rows missing.
SELECT stage AS row, num_in || ' in, ' || num_out || ' out, ' || num_rejected || ' rejected' AS detail
FROM $stages
WHERE num_pending <> 0 AND stage <> 'route'
