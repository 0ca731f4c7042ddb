"""The marks that reasoning models put around their thinking, and where a text holds them that should hold none.

The patterns mean the same to Python and to DuckDB (RE2).
"""

REASONING_MARKS = (
    r"(?i:</?(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|cot_budget_reflect)"
    r"(?:\s[^<>\n]*)?/?>)"  # most models
    r"|(?i:<\|/?(?:begin_of_|end_of_|start_|end_|begin_)?(?:think|thinking|thought|reasoning|solution|response)\|>)"
    r"|\[/?(?:THINK|REASONING)\]|\[BEGIN FINAL RESPONSE\]"  # Magistral, Apriel
    r"|◁/?think▷"  # Kimi
    r"|<\|?channel\|?>|<\|start\|>assistant|<\|message\|>"  # gpt-oss, Gemma
    r"|<unused9[45]>"  # MedGemma
)
"""Any mark that opens or closes thinking, whatever the model."""

QUOTED_CODE = r"(?s:```.*?```|~~~.*?~~~|``.+?``)|`[^`\n]+`"
"""Code in Markdown, in which a text may talk about such marks."""
