"""On which side of the train/eval split a prompt is: by its root's id alone, so that all its translations are with it."""


def choose_split(root_id: str, eval_percent: float) -> str:
    """Return "train" or "eval": "eval" for about that share of all roots."""
    return "eval" if int(root_id[:13], 16) / 16**13 * 100 < eval_percent else "train"


_SHARE = "TRY_CAST('0x' || root_id[1:13] AS BIGINT) / 16::DOUBLE ** 13 * 100"

SPLIT_SQL = f"""
CREATE OR REPLACE TEMP MACRO choose_split(root_id, eval_percent, otherwise) AS
    CASE WHEN {_SHARE} < eval_percent THEN 'eval' WHEN {_SHARE} >= eval_percent THEN 'train' ELSE otherwise END
"""
"""DuckDB macro equal to ``choose_split``, and to ``otherwise`` where there is no percentage."""
