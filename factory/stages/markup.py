"""What must come out of a translation as it went in: code, formulas, links, mail addresses, tags, placeholders."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_URL = r"[!#-&*-;=?-Z_a-z~]"

# Lengths are bounded so that no text, however odd, takes quadratic time. ASCII classes keep a URL from running on into
# Chinese or Japanese text, which follows without a space.
_KINDS = {
    "code_block": r"(?<!`)(?P<fence>`{3,}+)[^`\n]*\n(?s:.*?)(?:(?P=fence)`*|\Z)"
    r"|(?m:^[ \t>]*)(?P<tildes>~{3,})[^\n]*\n(?s:.*?)(?:(?m:^[ \t>]*)(?P=tildes)~*|\Z)",
    "code": r"```[^`\n]{1,1000}```|``[^\n]{1,500}?``|`[^`\n]{1,500}`",
    "formula": r"\$\$(?s:[^$]{1,3000})\$\$|\\\[(?s:.{1,2000}?)\\\]|\\\((?s:.{1,500}?)\\\)"
    r"|\\begin\{(?P<env>[a-z]{1,20}\*?)\}(?s:.{0,5000}?)\\end\{(?P=env)\}"
    r"|(?<![A-Za-z0-9$\\])\$(?=[^\s$])(?=[^$\n]{0,300}[\\^_={}<>+*]|[A-Za-z]\$)[^$\n]{1,300}(?<=\S)\$(?!\d)",
    "image": r"!\[[^\[\]\n]{0,300}\]\([^()\s]{1,2000}(?:\s\"[^\"\n]{0,300}\")?\)",
    "link_begin": r"\[(?=[^\[\]\n]{1,300}\]\([^()\s]{1,2000}[\s)])",
    "link_end": r"\]\([^()\s]{1,2000}(?:\s\"[^\"\n]{0,300}\")?\)",
    "mail": r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
    "url": rf"(?:https?://|ftp://|(?<![A-Za-z0-9])www\.)(?:{_URL}|\({_URL}{{0,200}}\)){{1,2000}}(?<![.,;:!?*_])",
    "tag": r"<!--(?s:.{0,2000}?)-->|</?[A-Za-z][^<>\n]{0,300}>|&(?:[a-zA-Z]{2,8}|\#[0-9]{2,6});",
    "placeholder": r"\{\{[^{}\n]{0,100}\}\}|\$?\{[A-Za-z0-9_.:!\[\]]{0,60}\}|\$[A-Z_][A-Z0-9_]{1,60}(?![A-Za-z0-9_])"
    r"|(?<![A-Za-z0-9_%])%(?:\([A-Za-z_][A-Za-z0-9_]{0,60}\)|[1-9]\$)?[sdifgr](?![A-Za-z0-9_%])",
}

_PROTECTED = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()))
_URL_IN_LINK = re.compile(r"\]\(([^()\s]+)")
_TAG_NAME = re.compile(r"</?[A-Za-z][\w:-]*")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text. ``kind`` is empty for prose, else what the part is."""

    text: str
    kind: str = ""


def split_protected(text: str) -> Iterator[Span]:
    """Yield the parts of a text in order, prose and protected; together they are the text."""
    end = 0
    for match in _PROTECTED.finditer(text):
        if match.start() > end:
            yield Span(text[end : match.start()])
        kind = next(kind for kind in _KINDS if match[kind] is not None)
        yield Span(match[0], kind)
        end = match.end()
    if end < len(text):
        yield Span(text[end:])


def name_protected(span: Span) -> str | None:
    """Return what must be found again in a translation: the span without what may change, or None for no thing."""
    match span.kind:
        case "" | "link_begin":
            return None
        case "code_block":
            return "\n".join(line.strip() for line in span.text.split("\n")[1:] if not line.strip().startswith("```"))
        case "formula":
            return "".join(span.text.split())
        case "image" | "link_end":
            found = _URL_IN_LINK.search(span.text)
            return found[1] if found else span.text
        case "tag":
            # Attributes such as alt texts may be translated; a tag of one word is itself, as <NAME> is.
            name = _TAG_NAME.match(span.text)
            return f"{name[0]}>" if name else span.text
        case _:
            return span.text
