"""The marks that reasoning models put around their thinking, and where a text holds them that should hold none.

The patterns mean the same to Python and to DuckDB (RE2).
"""

_NAME = r"(?:(?:[a-z][a-z0-9]*[_:])?think(?:ing)?|(?:seed:)?(?:thoughts?|reasoning|reflection|scratchpad|cot_budget_reflect))"
_FIRST_NAME = (
    r"(?:[a-z][a-z0-9]*[_:-])*(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|analysis|rationale|monologue|cot)"
    r"(?:[_-]process)?"
)
"""With any prefix, and names that are words of XML too: what a text begins with is hardly an answer's own element."""

REASONING_MARKS = (
    rf"(?i:[<＜][ \t]*/?[ \t]*{_NAME}(?:\s[^<>＞\n]*)?/?[>＞])"  # most models
    rf"|\A\s*(?i:(?:[<＜]|&lt;)[ \t]*{_FIRST_NAME}[ \t]*(?:[>＞]|&gt;))|(?im:^[ \t]*&lt;/think(?:ing)?&gt;)"
    r"|(?i:<\|/?(?:begin_of_|end_of_|start_|end_|begin_)?(?:think|thinking|thought|reasoning|solution|response)\|>)"
    r"|\[/?(?:THINK|REASONING)\]|\[BEGIN FINAL RESPONSE\]"  # Magistral, Apriel
    r"|◁/?think▷"  # Kimi
    r"|<\|?channel\|?>|<\|start\|>assistant|<\|message\|>"  # gpt-oss, Gemma
    r"|<unused9[45]>"  # MedGemma
)
"""Any mark that opens or closes thinking, whatever the model; those that begin a text may have white space before them."""

QUOTED_CODE = r"(?s:```.*?```|~~~.*?~~~|``.+?``)|`[^`\n]+`"
"""Code in Markdown, in which a text may talk about such marks; they are looked for in what ``HIDDEN_CODE`` leaves."""

HIDDEN_CODE = "`"
"""What stands in place of such code, so that nothing behind it begins the text."""
