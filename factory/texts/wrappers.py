"""What LLMs put around a translation though they were told to return it alone."""

import re

_ANNOUNCEMENT = re.compile(
    r"(?:\*\*)?(?:(?:sure|certainly|of course)[,.!]?\s+)?"
    r"(?:here(?:'s| is| are)\b[^\n:]{0,60}\btranslat\w*[^\n:]{0,60}|(?:the\s+)?translat(?:ion|ed text)\b[^\n:]{0,40}"
    r"|übersetzung|traduction|traducción|tradução|traduzione|vertaling|traducere|tłumaczenie|překlad|перевод|переклад"
    r"|çeviri|terjemahan|bản dịch|μετάφραση|ترجمة|الترجمة|ترجمه|תרגום|अनुवाद|翻译|翻譯|翻訳|번역|译文|譯文|訳文)"
    r"\s*(?:\*\*)?[:：](?:\*\*)?\s*",
    re.IGNORECASE,
)
_TAGGED = re.compile(r"<(text|translation|translated_text)>\s*(.*?)\s*</\1>", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```[^`\n]*\n(.*?)\n?```", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "「": "」", "『": "』"}


def strip_wrappers(reply: str, source: str) -> str:
    """Return a reply without an announcement, tags, a code fence or quotes around the whole, unless the source has them."""
    text, source = reply.strip(), source.strip()
    announced = _ANNOUNCEMENT.match(text)
    if announced and not _ANNOUNCEMENT.match(source):
        text = text[announced.end() :]
    tagged = _TAGGED.fullmatch(text)
    if tagged and not _TAGGED.fullmatch(source):
        text = tagged[2]
    fenced = _FENCED.fullmatch(text)
    if fenced and "```" not in source:
        text = fenced[1].strip()
    closing = _QUOTES.get(text[:1])
    if closing and text.endswith(closing) and len(text) > 2 and source[:1] not in _QUOTES:
        inner = text[1:-1]
        if closing not in inner and text[0] not in inner:
            text = inner.strip()
    return text
