"""The train/eval split. It depends only on the root prompt's id, so all translations of a prompt are on one side."""


def choose_split(root_id: str, eval_percent: float) -> str:
    """Return "eval" for about ``eval_percent`` percent of all root ids, otherwise "train"."""
    return "eval" if int(root_id[:13], 16) / 16**13 * 100 < eval_percent else "train"


_SHARE = "TRY_CAST('0x' || root_id[1:13] AS BIGINT) / 16::DOUBLE ** 13 * 100"

SPLIT_SQL = f"""
CREATE OR REPLACE TEMP MACRO choose_split(root_id, eval_percent, otherwise) AS
    CASE WHEN {_SHARE} < eval_percent THEN 'eval' WHEN {_SHARE} >= eval_percent THEN 'train' ELSE otherwise END
"""
"""DuckDB macro equal to ``choose_split``; it returns ``otherwise`` where the percentage is null."""
