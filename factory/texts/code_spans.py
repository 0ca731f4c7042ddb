"""JSON and SQL within a line or over several: where a value or a statement that begins at some place ends."""

import re

MAX_CHARS = 20_000
MAX_SQL_CHARS = 3_000
MAX_DEPTH = 40

_JSON_TOKEN = re.compile(
    r"\s*(?:(?P<open>[\[{])|(?P<close>[\]}])|(?P<string>\"(?:[^\"\\\n]|\\.){0,2000}\"|'(?:[^'\\\n]|\\.){0,500}')"
    r"|(?P<key>[A-Za-z_$][\w$-]{0,60}|-?\d+)(?=\s*:)|(?P<value>-?\d[\d.eE+-]*|true|false|null|None|True|False|undefined|\.\.\.)"
    r"|(?P<mark>[,:]))"
)


def find_json_end(text: str, begin: int) -> tuple[int | None, int]:
    """Return where the object or array that begins at a place ends, and how far the text was read.

    The end is None if there is no such thing, or none that says what it is.

    Keys without quotes and single quotes are understood, as in JavaScript and Python; a list of numbers is not JSON,
    nor a set of words.
    """
    closing, at, has_pair, num_strings, is_value = "", begin, False, 0, False
    while (token := _JSON_TOKEN.match(text, at)) is not None and at - begin < MAX_CHARS and len(closing) < MAX_DEPTH:
        at = token.end()
        if token["close"]:
            if token["close"] != closing[-1:]:
                return None, at
            closing, is_value = closing[:-1], True
            if not closing:
                return (at if has_pair or num_strings else None), at
        elif token["mark"]:
            has_pair, is_value = has_pair or token["mark"] == ":", False
        elif is_value:
            return None, at  # two values with nothing between them
        elif token["open"]:
            closing += "]" if token["open"] == "[" else "}"
        else:
            num_strings, is_value = num_strings + (token["string"] is not None), True
    return None, at


_OPENERS = (
    r"SELECT\s|INSERT\s+INTO\s|UPDATE\s+[\w.`\"\[\]]+\s+SET\s|DELETE\s+FROM\s|(?:CREATE|ALTER|DROP)\s+(?:OR\s+REPLACE\s+)?"
    r"(?:TEMP(?:ORARY)?\s+)?(?:UNIQUE\s+)?(?:TABLE|INDEX|VIEW|DATABASE)\s|TRUNCATE\s+TABLE\s|WITH\s+(?:RECURSIVE\s+)?\w+\s+AS\s*\("
)
SQL_BEGIN = rf"(?=[ACDISTUWacdistuw])(?<![\w.@#])(?i:{_OPENERS})"

_SQL_TOKEN = re.compile(
    r"[ \t]*+\n?[ \t]*+(?:(?P<string>'(?:[^'\n]|''){0,500}'|\"[^\"\n]{1,100}\"|`[^`\n]{1,100}`|\[[\w ]{1,60}\])"
    r"|(?P<number>\d[\d.]*)|(?P<word>[A-Za-z_@#$:][\w$]*(?:\.(?:\w+|\*))*)|(?P<sign><>|!=|<=|>=|\|\||::|[-+*/%=<>(),;?]))"
)
_KEYWORDS = (
    "select from where and or not in is like ilike between exists case when then else end as on using join left right inner "
    "outer full cross group order by having limit offset union all distinct insert into values update set delete create "
    "alter drop truncate table index view database column add primary foreign key references default unique check constraint with "
    "recursive over partition rows range returning top asc desc null true false cascade modify rename unsigned cast "
    "interval replace temporary temp auto_increment"
)
_TYPES = "int integer bigint smallint serial varchar char text date datetime timestamp boolean decimal numeric float real blob"
_FINAL = "end asc desc null true false key all cascade distinct"
_TALK = frozenset(["statement", "statements", "command", "query", "clause", "keyword", "syntax"])
"""What follows a keyword where a text speaks of it."""

_SQL_TYPES = frozenset(_TYPES.split())
_SQL_WORDS = frozenset(_KEYWORDS.split()) | _SQL_TYPES
_SQL_JOINTS = frozenset(["union", "all", "except", "intersect"])
_SQL_FINAL = frozenset(_FINAL.split()) | _SQL_TYPES
"""Words after which a statement may be over."""


def find_sql_end(text: str, begin: int) -> tuple[int | None, int]:
    """Return where the statement that begins at a place ends, and how far the text was read.

    The end is None where prose begins like a statement.

    A name that stands where an operator, a comma or a keyword belongs is the first word after the statement. English
    has most of the keywords: signs, or keywords in capitals beside names that are not, make a statement.
    """
    at, end, depth, is_complete = begin, begin, 0, False
    words: list[str] = []
    signs = ""
    is_upper = text[begin : begin + 2].isupper()
    while (token := _SQL_TOKEN.match(text, at)) is not None and at - begin < MAX_SQL_CHARS:
        word = token["word"]
        if word and _is_keyword(word, is_upper):
            if word.lower() == "select" and words[:1] == [word] and not depth and words[-1].lower() not in _SQL_JOINTS:
                break  # another statement begins
            is_complete = word.lower() in _SQL_FINAL
            words.append(word)
        elif token["sign"] and token["sign"] not in "*?":
            depth += (token["sign"] == "(") - (token["sign"] == ")")
            if depth < 0 or (token["sign"] == ";" and depth):
                break
            is_complete = token["sign"] in ");"
            signs += token["sign"]
        elif is_complete and not (token["sign"] == "*" or _is_alias(text, token, is_upper)):
            break
        else:
            is_complete = True
            words.append(word or "")
            signs += token["sign"] or ("'" if token["string"] else "")
        at = token.end()
        end = at if is_complete and not depth else end
        if token["sign"] == ";":
            break
    is_one = end > begin and _is_statement(text[begin:end], words, signs)
    return (end if is_one else None), at


def _is_keyword(word: str | None, is_upper: bool) -> bool:
    """Whether a word is one of SQL's; in a statement in capitals only words in capitals are, and names of types."""
    if word is None or word.lower() not in _SQL_WORDS:
        return False
    return not is_upper or word.isupper() or word.lower() in _SQL_TYPES


def _is_alias(text: str, token: re.Match[str], is_upper: bool) -> bool:
    """Whether a name after a name renames it: a keyword, a comma or the end of the statement follows."""
    if token["word"] is None:
        return False
    following = _SQL_TOKEN.match(text, token.end())
    if following is None:
        return False
    return _is_keyword(following["word"], is_upper) or following["sign"] in {",", ";", ")", "="}


def _is_statement(statement: str, words: list[str], signs: str) -> bool:
    first = words[0].lower()
    lower = {word.lower() for word in words}
    names = [word for word in words if word and word.lower() not in _SQL_WORDS]
    wanted = {"select": "from", "update": "set", "insert": "values", "delete": "from"}.get(first)
    if wanted is not None and wanted not in lower and not (first == "insert" and "select" in lower):
        return first == "select" and words[0].isupper() and any(sign in signs for sign in "*(=") and not names
    if names and names[0].lower() in _TALK:
        return False
    if first == "update" and "=" not in signs:
        return False
    keywords = [word for word in words if word.lower() in _SQL_WORDS and word.lower() not in _SQL_TYPES]
    if all(map(str.isupper, keywords)):
        return any(not name.isupper() for name in names) or any(sign in signs for sign in "*=(',")
    compares = any(sign in signs for sign in "=<>'")
    return (
        bool(re.match(r"(?is)select\s+(?:\w+\.)?\*\s", statement))
        or (first in {"create", "alter"} and "(" in signs and bool(lower & _SQL_TYPES))
        or (first == "select" and "," in signs and bool(re.search(r"_|\bid\b", statement)))
        or (first == "insert" and "(" in signs)
        or (compares and bool(lower & {"where", "set", "having", "on"}))
        or (
            statement.endswith(";")
            and ("_" in statement or "," in signs or bool(re.search(r"\w\(", statement)))
            and first != "select"
        )
        or (first == "select" and bool(re.search(r"\w\([^()]*\)", statement)) and "by" in lower)
    )
