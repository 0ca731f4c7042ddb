"""What looks like code wherever it stands: held against a translation, and never the reason why prose is not sent.

A translator keeps these in prose too: names with underscores or with a capital inside, calls, options, and signs and
brackets that no sentence is made of.
"""

import re
import unicodedata
from collections import Counter

_NAMES = re.compile(
    r"(?<![\w@/.*-])(?!\w*_(?:in|innen|r|n|rin|rinnen)(?!\w))[A-Za-z]\w{0,60}_[A-Za-z0-9]\w{0,60}(?![\w*])"
    r"|(?<![\w@.-])(?!isi[A-Z])[a-z]{2,40}+[A-Z][a-z]\w{0,60}"
    r"|(?<![\w.])[A-Za-z_]\w{1,40}\((?=\)|[^()\n]{0,60}[\"=_])"
    r"|(?<=[\w'\"] )-{1,2}[A-Za-z][\w-]{1,40}(?==)|(?<=[\w'\"] )--[a-z][\w-]{1,40}"
    r"|(?<!\w)\w{1,40} (?=\(\\\w[\w ]{0,30}->)|(?<!\w)\w{1,40} (?=\([-+*/%<>=]{1,2}\s?\w{1,20}\) \[)",
    re.ASCII,
)
_SIGNS = re.compile(r"[!=]==?|&&|\|\||->|=>|<-|<=|>=|:=|::|\+\+|[-+*/]=|[{}\[\]\\=^@<>]")
_SAME = str.maketrans(
    {"→": "->", "⇒": "=>", "←": "<-", "≤": "<=", "≥": ">=", "≠": "!=", "【": "[", "】": "]", "〔": "[", "〕": "]"}
)


def find_lost_signs(source: str, translation: str) -> list[str]:
    """Return the names, calls, options and signs of code in a text of which its translation has fewer."""
    names = Counter(_NAMES.findall(source))
    lost = [name for name, num in names.items() if translation.count(name.strip()) < num]
    signs = _count_signs(source)
    return lost + list((signs - _count_signs(translation)).elements()) if signs else lost


def _count_signs(text: str) -> Counter[str]:
    return Counter(_SIGNS.findall(unicodedata.normalize("NFKC", text.translate(_SAME))))
