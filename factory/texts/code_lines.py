"""Lines of a text that are code, configuration, output of programs or tables of data, though no fence says so.

A line is strong where it alone could be nothing else, weak where it could be prose: weak ones count beside strong
ones only. Lines inside of brackets that a strong line opens count whatever they hold.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

MAX_LINE_CHARS = 500
MAX_BRACKET_LINES = 300


class Weight(IntEnum):
    """What a line says of itself."""

    PROSE = 0
    BLANK = 1
    WEAK = 2
    STRONG = 3


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text, without its line break: where it begins and ends, and what it is."""

    begin: int
    end: int
    text: str
    weight: Weight


_MODULES = (
    "argparse ast asyncio base64 bisect collections copy csv cv2 datetime decimal django enum flask fmt functools glob "
    "gzip heapq http inspect io itertools json keras logging math matplotlib multiprocessing networkx nltk numpy openai os "
    "pandas pathlib pickle plotly pprint pygame pytest queue random re requests scipy seaborn secrets selenium shutil "
    "sklearn socket spacy sqlite3 statistics string subprocess sympy sys tempfile tensorflow threading time timeit tkinter "
    "torch transformers turtle typing unittest urllib uuid warnings xml zipfile"
).replace(" ", "|")
_TYPES = (
    "const|let|var|val|final|auto|static|public|private|protected|int|long|float|double|bool|boolean|char|string|String|"
    "unsigned|my|our|local|export|global|readonly|mut|byte|short|size_t|uint\\d*|int\\d+|u?int\\d+_t|extern|constexpr|"
    "inline|volatile|void|async|override|virtual|abstract|internal|pub|fn|func|function|fun|def|type"
)
COMMANDS = (
    "git|npm|npx|yarn|pnpm|pip3?|docker|docker-compose|kubectl|helm|sudo|apt|apt-get|brew|conda|cargo|chmod|chown|mkdir|rmdir|"
    "grep|egrep|curl|wget|ssh|scp|rsync|systemctl|awk|sed|tar|unzip|gzip|python3?|node|java|javac|gcc|g\\+\\+|clang|make|cmake|"
    "ls|cd|cp|mv|rm|cat|echo|find|ps|kill|export|source|ffmpeg|openssl|psql|mysql|redis-cli|terraform|ansible|aws|gcloud|"
    "dotnet|mvn|gradle|ruby|gem|bundle|go|rustc|poetry|uv|pytest|touch|ping|nmap|netstat|ifconfig|crontab|journalctl|nohup|head|tail|sort|wc"
)
WORDS = "make|find|cat|go|kill|source|export|touch|echo|node|ping|uv|gem|bundle|cd|cp|ps|aws|helm|curl|clang|ruby|java|python|head|tail|sort|wc"
"""Commands that are words of prose too: only options, paths and variables behind them make a command."""
_COMMAND_WORDS = (
    "install|commit|push|pull|clone|checkout|add|status|init|run|build|start|stop|exec|get|apply|describe|logs|update|upgrade|"
    "compose|create|remove|uninstall|rebase|merge|branch|stash|reset|log|diff|fetch|publish|up|down|restart|enable|images|test"
)
_ARGUMENT = r"(?:-{1,2}[A-Za-z][^\s]*|[^\s]*[/\\=$.*~:@_\d\"'|<>&{}\[\]-][^\s]*|\"[^\"]*\"|'[^']*')"

_STRONG = [
    # what opens or closes a block
    r"[^{}\n]*[\w)\]>\"'=:*+.-]\s*\{\s*(?://.*|/\*.*)?$",
    r"[}\])]+[;,)]*\s*(?:else|catch|finally|while|from|as|\.\w+\(|=>|export).*",
    r"[^\s{}][^{}]*\{[^{}]*[;:][^{}]*\}\s*[;,]?$(?<=[;}\s,])",
    # Python and its kin
    r"(?:async )?def \w+[?!]?\s*(?:\(.*)?$",
    r"class [A-Z_]\w*(?:\(.*\))?\s*:$|class [A-Z_]\w*(?:\s*<\s*[A-Z][\w:]*)?$",
    r"(?=.*:$)(?:if|elif|while|with|for|except|match|case)\b.*(?:==|!=|<=|>=|[\w)\]]\s[<>]\s|\w\(|[a-z_]{2,}\.[a-z_]{2,}|\w\[|\w_\w"
    r"|\bnot \w+:|\bis (?:not )?None\b).*:$",
    r"elif\b.*:$|except(?:\s+[\w.]*(?:Error|Exception|Interrupt|Exit)(?:\s+as \w+)?|\s*\(.*\)(?:\s+as \w+)?)\s*:$",
    rf"import (?:{_MODULES})(?:, *\w+)*$|import [\w.]+ as \w+$|import \w+\.[\w.*]+;?$|import (?:static )?[\w.]*\.[\w.*]+;$",
    rf"from (?:[\w.]*[._][\w.]*|{_MODULES}) import [\w*({{].*",
    r"import\s+(?:[\w*{].*\s+from\s+)?[\"'][^\"']+[\"'];?$",
    r"#\s*(?:include\s*[<\"]|define\s+\w|ifn?def\s+\w|endif\b|pragma\s+\w)|#!/\w",
    r"using (?:namespace )?\w+(?:\.\w+)*;|package (?:[\w.]+;|main$)|(?:require|include)(?:_once|_relative)?\s*\(?[\"'].*[\"']\)?;?$",
    r"library\(\w+\)|use (?:\w+::[\w:{}, *]+|strict|warnings)\s*;|attr_(?:accessor|reader|writer) :\w+.*",
    r"template\s*<.*>.*|pragma \w+ .*;",
    # statements
    rf"(?:(?:{_TYPES})\s+){{1,6}}[\w$<>\[\],.:*& ]*?[\w$>\]*]\s*+(?::[\w<>\[\] |]++)?\s*+:?=[^=].*",
    rf"(?:(?:{_TYPES})\s+){{1,6}}[\w$<>\[\],.:*&?]*+(?:\s++\w++)?(?<=\w)\(.*",
    r"(?=.*[=()\[\].\"'+*/<>-])(?:return|throw|yield|await|raise|delete|goto)\b.*;$",
    r"(?:return|yield|raise|throw)\s+(?:new\s+)?(?:[\w.]+\(.*\)?|f?[\"'].*|[\[({].*|-?\d+|self\b.*|None|True|False|not\s.*"
    r"|\w+\s*[-+*/%]\s*\w+.*|\w+[.\[]\w.*)$",
    r"(?:[\w$]+(?:[.\[]|->|::)[\w$.\[\]>\"'()-]*|[@$][\w]+\S*|[a-z_]\w*)\s*(?:[-+*/|&%^.?]{0,2}=|:=|<-|=~)\s*"
    r"(?:f?[\"'].*[\"'\])};,]|[\[{(].*|&?\w[\w.]*(?:::\w+)*[(\[<].*|[\w]+(?:\.[\w]+)+[;,]?|new\s.*"
    r"|(?:True|False|None|null|nil|true|false|undefined|lambda|await|not|async|function)\b.*"
    r"|-?[\d.]+(?:\s*[-+*/%]\s*[\w.()]+)*\s*[;,]?|[$@&].*|.*;)$",
    r"(?:[\w$\].\[]+)\s*(?:\+\+|--);?$",
    r"(?:await |return |yield |throw |raise |new |go |defer )?(?=[\w$.:>-]*+!?\()(?>[\w$]*(?:[._]|::|->|[a-z][A-Z])[\w$.:>-]*+!?\().*\)\s*(?:[;,:{]|=>.*)?$",
    r"(?:print|len|range|printf|println|console|alert|require|malloc|free|assert|exit|sum|plot|help|input|type|max|min)\(.*\)[;,]?$",
    r"(?!.*\((?:s|es|en|in|innen|e|n|x)\))[a-z_$][\w$]*!?\((?:|.*[\"'=\[\]{].*|[a-z_]\w*, .*|[a-z_\d., ]*);?\)\s*;$",
    r"[a-z_$][\w$]*\((?:|[\"'].*[\"'])\)$",
    r"(?:puts|echo|print|printf|p)\s+[\"'].*[\"'].*$",
    r"(?:\w+, ){0,9}\w+ = [\w.]+\($|[\w$.]*(?:[.=_]\w*|\s=\s*\w+)\($|.*=>\s*[{(]$|\.\w+\(.*\)?[;,]?$|.*(?:%>%|\|>)\s*$",
    r".*[\w)\]\"']\s*(?:;\s*(?://.*|#.*)|\)\s*;)$",
    r"(?:std::|System\.out|Console\.|cout\s*<<|cin\s*>>|fmt\.|println!).*",
    r"\w+ :: .*|@(?:Override|Test|Autowired|property|staticmethod|classmethod|app\.\w+|pytest\.\S+|Component|Entity)\b.*",
    r"\w[\w ]*\s\|\|\s.*\)\s*\{?$|.*\s&&\s.*[\w)]\s*[;{\\]$",
    # configuration
    r"\"[^\"\n]+\"\s*:\s*(?:\"(?:[^\"\\]|\\.)*\"|-?\d[\d.eE+-]*|true|false|null|[\[{].*)\s*[,\]}]*$",
    r"[A-Z][A-Z0-9_]*=\S.*$|export [A-Z_]+=.*",
    r"(?:color|background(?:-\w+)?|margin(?:-\w+)?|padding(?:-\w+)?|font(?:-\w+)?|display|width|height|border(?:-\w+)?|position|"
    r"top|left|right|bottom|text-\w+|flex(?:-\w+)?|grid(?:-\w+)*|max-\w+|min-\w+|z-index|overflow|opacity|transition)\s*:[^;]+;$",
    r"(?:int|string|repeated|optional|required|bool|double|float|bytes|u?int(?:32|64))\s+[\w.]+(?:\s+\w+)?\s*=\s*\d+;$",
    r"(?:\*|\d+|\*/\d+)(?:\s+(?:\*|[\d,-]+|\*/\d+)){4}\s+\S.*",
    # commands and their output
    r"\$\s+[A-Za-z./~].*|[\w.-]+@[\w.-]+:\S*[$#]\s.*|PS [A-Z]:\\.*|[A-Z]:\\[^>]*>.*|>>>(?:\s.*)?|In \[\d+\]:.*|Out\[\d+\]:.*",
    rf"(?!(?:{WORDS})\s+[^-./~$*]*$)(?:sudo\s+)?(?:{COMMANDS})(?:\s+(?:{_COMMAND_WORDS})\b)?(?:\s+(?:{_ARGUMENT}|[a-z]{{2,12}}(?=\s+-)))+(?:\s+[a-z\d]{{2,12}}){{0,2}}$",
    rf"(?:sudo\s+)?(?:git|npm|npx|yarn|pip3?|docker|kubectl|apt-get|brew|conda|cargo)\s+(?:{_COMMAND_WORDS})(?:\s+[a-z\d@./-]+){{0,3}}$",
    r"Traceback \(most recent call last\):|File \"[^\"]+\", line \d+.*|Exception in thread .*|Caused by: [\w.]+.*",
    r"at [\w.$<>\[\] ]+\s?\(.*\)$|at \S+:\d+(?::\d+)?\)?$|\.\.\. \d+ more$|npm ERR!.*|panic: .*|goroutine \d+ .*",
    r"(?=[\w.]*?(?:Error|Exception|Warning|Interrupt)\b)(?:[\w]+\.)*[A-Z]\w*[a-z][A-Z]?\w*(?:Error|Exception|Warning|Interrupt)\b(?::.*)?$(?<!^Error)",
    r"\S+:\d+(?::\d+)?: (?:fatal |runtime )?(?:error|warning|note|info)\b.*|\S+\.\w+: In (?:member )?function .*|error\[E\d+\].*",
    r"\[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d\S*\]?\s.*(?:\b(?:DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|FATAL|TRACE|CRITICAL)\b"
    r"|\[[\w.-]*\d\]|\w=\w).*",
    r"\[(?:DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|TRACE|CRITICAL)\]\s.*",
    r"(?:DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL):[\w.]+:.*",
    r"[A-Z][a-z]{2}\s+\d{1,2} \d\d:\d\d:\d\d [\w.-]+ [\w./-]+(?:\[\d+\])?:.*|\d+\.\d+\.\d+\.\d+ - \S+ \[.*",
    r"diff --git .*|@@ -\d+.*|(?:\+\+\+|---) [ab]/.*|index [0-9a-f]{7,}\.\..*",
    r"(?:GET|POST|PUT|DELETE|PATCH|HEAD|OPTIONS) /\S*(?: HTTP/[\d.]+)?$|HTTP/[\d.]+ \d{3}\b.*",
    r".*[├└│]\s?──.*",
    # tables of data
    r"\+[-=+]{3,}\+$|-{2,}\+(?:-+\+)*-{2,}$",
    # LaTeX's preamble, assembly, HTML's head
    r"\\(?:documentclass|usepackage|begin\{document|end\{document|newcommand|maketitle|input|include)\b.*",
    r"(?:mov|push|pop|lea|cmp|xor|add|sub|imul|call|jmp|je|jne|int)\w?\s+(?:%?[er]?[a-ds][xpi]l?\b|\$|\[|0x|\w+,).*",
    r"(?:section|global|extern)\s+[._]\w+|int\s+0x[0-9a-fA-F]+",
    r"<\?(?:php|xml|=).*|\?>$|<!DOCTYPE\b.*",
    r"(?:CREATE|ALTER|DROP|INSERT|PRIMARY|FOREIGN|GROUP|ORDER|LEFT|INNER|RIGHT|OUTER) (?:TABLE|INTO|KEY|BY|JOIN|INDEX|VIEW)\b.*[a-z_(].*",
    r"END\s*;|BEGIN\s*;?$(?<=;)|(?:DECLARE|EXEC) @?\w+.*",
]
_WEAK = [
    r"[\[\](){};,|&<>/*.=+-]+$",
    r"(?:end|done|fi|esac|begin|then|do|else|pass|break|continue|return|endif|endfor|loop|try|finally|else if.*|EOF)\s*[:;{]?$",
    r"(?:try|else|finally|except|do)\s*:$|else\s+\S.*|(?:if|while|for|elif|until|unless|when|case)\b.*",
    r"@\w+(?:\.\w+)*(?:\(.*\))?$",
    r"(?:namespace|class|struct|module|interface|enum|object|trait|impl|package|mod)\s+[A-Z]\w*.*",
    r"(?:import|from|use|using|include|require|return|print|echo|var|let|const|set|local|export|module|yield|raise)\b.*",
    r"[\w.$\[\]\"'-]+\s*(?:[-+*/|]?=|:=|<-)\s*\S.*",
    r"[\w$.]+\(.*\)?[;,:]?$",
    r".*[;{}\\]$",
    r"[a-z_][\w-]*:\s*\S*$",
    r"[\"'][^\"']*[\"'],?$",
    r"\|.*\|$|.*\s\|\s.*",
    r"[+-]\S.*",
    r"(?:Host|User-Agent|Accept\S*|Content-\S+|Authorization|Connection|Cookie|Cache-Control|[A-Z]\w+-[A-Z][\w-]*): .*",
    r"-?\d+(?:\.\d+)?$",
    r"(?:WHERE|AND|OR|FROM|JOIN|ON|HAVING|LIMIT|VALUES|SET|UNION|SELECT|INTO)\b.*",
    r"(?:FROM|RUN|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|WORKDIR|USER|ARG) \S.*",
    r"(?:push|pop|mov|call|ret|nop|syscall)\b.*|[._]\w+:$",
    r"\^~*$|~*\^$",
    r"\w+ \w+ = .*",
]
_IS_STRONG = re.compile("|".join(f"(?:{pattern})" for pattern in _STRONG), re.ASCII)
_IS_WEAK = re.compile("|".join(f"(?:{pattern})" for pattern in _WEAK), re.ASCII)
_IS_COMMENT_OR_HEAD = re.compile(
    r"for [a-z_]\w*(?:, ?\w+)* in [\w.]+(?:\(.*\))?:$|(?:if|elif|while) (?:not )?[\w.]+(?: (?:and|or) [\w.]+)?:$|"
    r"#(?!#)\s?.*|//.*|/\*.*|\*/|--\s.*|%\s.*|;;.*|\"\"\".*|'''.*"
)
_SENTENCE = re.compile(r"(?:[^\W\d_]+[,;]? ){3}[^\W\d_]+|[\u3040-\u30ff\u3400-\u9fff]{4}")
_LONG_SENTENCE = re.compile(r"(?:[^\W\d_]+[,;:]? +){5}[^\W\d_]+")
_LOOSE = re.compile(
    r"(?!from |import |\$ |>>>|PS |[A-Z]:|\d|\[|[A-Z][a-z]{2}\s+\d{1,2} \d\d:|Traceback|File|Exception|Caused|at |npm|panic|\S+:\d|[\w.]+(?:Error|Exception))"
)
"""What may be prose that ends like code; lines that programs write often hold sentences."""
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|//.*|#.*|/\*.*")
_CODE_SIGNS = re.compile(r"[={}\[\]();<>_$@\\|\"'#]|\w\.\w")

_ASSIGNMENT = re.compile(r"[a-z_][\w.-]*\s*=\s*\S+$")
_SETTING_HEAD = re.compile(r"\[\[?[\w.\" -]+\]?\]$")
_DOCKER = re.compile(
    r"(?:FROM|RUN|CMD|COPY|ADD|ENTRYPOINT|ENV|EXPOSE|WORKDIR|USER|ARG|LABEL|VOLUME) \S.*[/.:\[\d\"=_-].*"
)
_YAML = re.compile(r"\s*(?:- )?[a-z_][\w.-]*:(?:\s+\S+)?$|\s+- \S+$")
_YAML_SIGN = re.compile(r"[a-z_][\w.-]*:$|.*(?:_\w{1,80}:|:\s+(?:[\"'].*|[\d.]+|true|false|\[.*|\S+:\S+)$)")
_MAKE = re.compile(r"[\w.%/-]+:(?: [\w.%/-]+)*$")
_PROMPT = re.compile(r"\$\s+[A-Za-z./~]|>>> |PS [A-Z]:\\|[\w.-]+@[\w.-]+:\S*[$#]\s", re.ASCII)
_GROUPS = ((_ASSIGNMENT, 2, None), (_DOCKER, 2, None), (_YAML, 3, _YAML_SIGN))
"""Lines that only several of their kind in a row make code: how they look, how many, and what one of them must be."""

_ONES_OF_MANY = (_ASSIGNMENT, _DOCKER, _YAML, _MAKE, _PROMPT, _SETTING_HEAD)


def find_code_lines(text: str) -> Iterator[tuple[int, int]]:
    """Yield where runs of lines that are not prose begin and end, in order; the last line break is left out."""
    lines = _mark_groups(_mark_brackets(list(_read_lines(text))))
    at = 0
    while at < len(lines):
        if lines[at].weight < Weight.WEAK:
            at += 1
            continue
        stop = at
        while stop < len(lines) and lines[stop].weight > Weight.PROSE:
            stop += 1
        yield from _trim(lines[at:stop])
        at = stop


def find_prose_end(text: str, num_chars: int) -> int:
    """Return where the first lines end, of ``num_chars`` or more, that are prose whatever follows; 0 if they may not be."""
    end = 0
    for line in text.split("\n"):
        content = line.strip()
        if content and (_weigh(line, content, Weight.BLANK) != Weight.PROSE or _may_be_one_of_many(line)):
            return 0
        end += len(line)
        if end >= num_chars:
            return end
        end += 1
    return 0


def _may_be_one_of_many(line: str) -> bool:
    """Whether what comes after a line of prose may make it code."""
    content = line.strip()
    return any(pattern.match(line) or pattern.match(content) for pattern in _ONES_OF_MANY) or (
        "," in line and _is_data(line, line.count(","))
    )


def _read_lines(text: str) -> Iterator[Line]:
    begin, before = 0, Weight.BLANK
    for line in text.split("\n"):
        content = line.strip()
        weight = _weigh(line, content, before)
        yield Line(begin, begin + len(line.rstrip()), line, weight)
        begin += len(line) + 1
        before = weight if weight != Weight.BLANK else before


def _weigh(line: str, content: str, before: Weight) -> Weight:
    if not content:
        return Weight.BLANK
    if len(content) > MAX_LINE_CHARS:
        return Weight.PROSE
    if _IS_STRONG.match(content) and not (_LOOSE.match(content) and _LONG_SENTENCE.search(_QUOTED.sub("", content))):
        return Weight.STRONG
    if _IS_COMMENT_OR_HEAD.match(content) or (_IS_WEAK.match(content) and not _SENTENCE.search(content)):
        return Weight.WEAK
    is_indented = line[0] in " \t" and before >= Weight.WEAK
    if is_indented and (_CODE_SIGNS.search(content) or not _SENTENCE.search(content)):
        return Weight.WEAK
    return Weight.PROSE


def _mark_brackets(lines: list[Line]) -> list[Line]:
    """Make every line strong that lies between a strong line which opens a bracket at its end, and where that closes."""
    at, closes = 0, _find_closes(lines)
    while at < len(lines):
        stop = at + 1
        if lines[at].weight == Weight.STRONG and lines[at].text.rstrip()[-1:] in ("{", "[", "("):
            stop = closes[at] + 1 if closes[at] - at < MAX_BRACKET_LINES else at + 1
            lines[at:stop] = [_strengthen(line) for line in lines[at:stop]]
        at = stop
    return lines


def _find_closes(lines: Sequence[Line]) -> list[int]:
    """Return for each line the number of the line at whose end fewer brackets are open than at its own.

    That is the one which closes the last bracket that it opens; where none does, a number out of reach.
    """
    closes = [len(lines) + MAX_BRACKET_LINES] * len(lines)
    pending: list[tuple[int, int]] = []  # how many brackets are open at the end of which line, ever more
    depth = 0
    for number, line in enumerate(lines):
        depth += sum(map(line.text.count, "{[(")) - sum(map(line.text.count, ")]}"))
        while pending and pending[-1][0] > depth:
            closes[pending.pop()[1]] = number
        pending.append((depth, number))
    return closes


def _mark_groups(lines: list[Line]) -> list[Line]:
    for pattern, least, sign in _GROUPS:
        at = 0
        while at < len(lines):
            stop = at
            while stop < len(lines) and pattern.match(lines[stop].text):
                stop += 1
            found = lines[at:stop]
            has_head = at > 0 and _SETTING_HEAD.match(lines[at - 1].text.strip()) is not None
            if len(found) >= (1 if has_head and found else least) and (
                sign is None
                or (any(sign.match(line.text) for line in found) and any(line.text[0] == " " for line in found))
            ):
                at -= has_head
                lines[at:stop] = [_strengthen(line) for line in lines[at:stop]]
            at = stop + 1
    return _mark_data(_mark_sessions(_mark_rules(lines)))


def _mark_rules(lines: list[Line]) -> list[Line]:
    """Make a target of a Makefile strong, and the recipe below it."""
    for at in range(len(lines) - 1):
        if _MAKE.match(lines[at].text) and lines[at + 1].text.startswith("\t"):
            lines[at : at + 2] = [_strengthen(line) for line in lines[at : at + 2]]
    return lines


def _mark_sessions(lines: list[Line]) -> list[Line]:
    """Make what a shell wrote between two prompts strong."""
    prompts = [number for number, line in enumerate(lines) if _PROMPT.match(line.text.lstrip())]
    for first, last in pairwise(prompts):
        if all(line.weight != Weight.BLANK for line in lines[first:last]):
            lines[first:last] = [_strengthen(line) for line in lines[first:last]]
    return lines


def _mark_data(lines: list[Line]) -> list[Line]:
    """Make rows of comma-separated values strong: as many commas in each, none before a space, and a number in one."""
    at = 0
    while at < len(lines):
        num, stop = lines[at].text.count(","), at
        while num and stop < len(lines) and _is_data(lines[stop].text, num):
            stop += 1
        if stop - at >= 2 and any(char.isdigit() for line in lines[at:stop] for char in line.text):
            lines[at:stop] = [_strengthen(line) for line in lines[at:stop]]
        at = max(stop, at + 1)
    return lines


def _is_data(text: str, num_commas: int) -> bool:
    return text.count(",") == num_commas and re.search(r",\s|\.$|[。！？，]", text) is None


def _strengthen(line: Line) -> Line:
    return Line(line.begin, line.end, line.text, Weight.STRONG if line.text.strip() else Weight.BLANK)


def _trim(run: list[Line]) -> Iterator[tuple[int, int]]:
    """Yield the parts of a run that hold a strong line: weak lines are code beside it, and up to the next blank line."""
    parts: list[list[Line]] = [[]]
    for line in run:
        if line.weight == Weight.BLANK:
            parts.append([])
        else:
            parts[-1].append(line)
    parts = [part for part in parts if part]
    is_code = [any(line.weight == Weight.STRONG for line in part) for part in parts]
    last = max((at for at, is_one in enumerate(is_code) if is_one), default=-1)
    for at in range(1, len(parts) - 1):
        # Between code, a part of weak lines is code too, unless it reads like prose or a heading.
        is_between = is_code[at - 1] and at < last
        is_code[at] = is_code[at] or (is_between and not any(map(_reads_as_prose, parts[at])))
    for number, part in enumerate(parts):
        if is_code[number]:
            yield part[0].begin, part[-1].end


def _reads_as_prose(line: Line) -> bool:
    return line.text[:1] not in " \t" and (line.text.startswith("#") or _SENTENCE.search(line.text) is not None)
