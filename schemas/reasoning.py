"""Patterns for the marks that reasoning models put around their thinking, to find them where they do not belong.

The patterns mean the same in Python's ``re`` and in DuckDB (RE2).
"""

_NAME = r"(?:(?:[a-z][a-z0-9]*[_:])?think(?:ing)?|(?:seed:)?(?:thoughts?|reasoning|reflection|scratchpad|cot_budget_reflect))"
_FIRST_NAME = (
    r"(?:[a-z][a-z0-9]*[_:-])*(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|analysis|rationale|monologue|cot)"
    r"(?:[_-]process)?"
)
"""Tag names that count at the start of a text: any prefix, and words such as ``analysis`` that an answer might use for
an XML element of its own. An answer hardly starts with such an element."""

REASONING_MARKS = (
    rf"(?i:[<＜][ \t]*/?[ \t]*{_NAME}(?:\s[^<>＞\n]*)?/?[>＞])"  # most models
    rf"|\A\s*(?i:(?:[<＜]|&lt;)[ \t]*{_FIRST_NAME}[ \t]*(?:[>＞]|&gt;))|(?im:^[ \t]*&lt;/think(?:ing)?&gt;)"
    r"|(?i:<\|/?(?:begin_of_|end_of_|start_|end_|begin_)?(?:think|thinking|thought|reasoning|solution|response)\|>)"
    r"|\[/?(?:THINK|REASONING)\]|\[BEGIN FINAL RESPONSE\]"  # Magistral, Apriel
    r"|◁/?think▷"  # Kimi
    r"|<\|?channel\|?>|<\|start\|>assistant|<\|message\|>"  # gpt-oss, Gemma
    r"|<unused9[45]>"  # MedGemma
)
"""Any mark that opens or closes thinking, of any model. White space may come before a mark at the start of a text."""

QUOTED_CODE = r"(?s:```.*?```|~~~.*?~~~|``.+?``)|`[^`\n]+`"
"""Code in Markdown, in which a text may mention such marks; it is replaced by ``HIDDEN_CODE`` before the search."""

HIDDEN_CODE = "`"
"""What replaces quoted code. It is not empty, so that what follows the code does not become the start of the text."""
