"""What may stand in a line of prose and is none: the kinds of it, each with the patterns by which it is known.

At one place the first kind that fits counts. All patterns are for ``re.ASCII``.
"""

from factory.texts.code_lines import COMMANDS, WORDS

_URL = r"[!#-&*-;=?-Z_a-z~]"
_SUFFIXES = (
    "py|js|mjs|ts|tsx|jsx|java|cpp|cc|hpp|cs|rb|rs|php|html?|css|scss|json|jsonl|ya?ml|toml|xml|csv|tsv|txt|log|sql|sh|bat|ps1|"
    "ini|cfg|conf|exe|dll|zip|tar|gz|tgz|7z|rar|pdf|png|jpe?g|gif|svg|webp|mp[34]|wav|docx?|xlsx?|pptx?|ipynb|tex|bib|lock|env|"
    "vue|kt|swift|dart|scala|lua|jar|parquet|pkl|npy|pt|onnx|safetensors|gguf|bak|tmp|db|sqlite|md|rst|key|pem|crt"
)
_FOLDERS = (
    "src|lib|app|apps|bin|test|tests|node_modules|public|static|assets|docs|packages|dist|build|include|etc|usr|home|var|opt|"
    "components|models|views|controllers|config|scripts|data|target|vendor|utils|api|www|resources|templates"
)
_ROOTS = "etc|usr|var|home|tmp|opt|bin|dev|proc|root|mnt|srv|lib|boot|sys|sbin|media|run|Users|Applications|Library"
_COMMAND_PART = (
    r"(?:[ \t]+(?:\|[ ]+(?:sort|uniq|grep|head|tail|wc|awk|sed|less|xargs|cat|tee)\b|-m[ ]+(?:venv|pip|pytest|unittest|http\.server)\b|-n[ ]+(?:prod|dev|default|staging|test|kube-system)\b|-it[ ]+[a-z0-9:.-]+"
    r"|--(?=[ ]--)|-{1,2}[A-Za-z][\w-]*(?:=[^\s,;]+)?|[A-Z]{3,7}\b(?=[ ]+\S*[/:])|\.[\w-]+|\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'|[|&]{1,2}[ \t]+[a-z][\w-]*|>{1,2}"
    r"|\.(?![\w.])|[\w@{}$~.*+:-]*[/\\=$*@_~][\w@{}$~.*+:/\\=-]*|[\w-]+(?:\.[\w-]+)+|\+[a-z]\b|\d+(?:\.\d+)*\b))"
)
_SUBCOMMANDS = (
    r"git[ ]+(?:commit|push|pull|clone|checkout|add|status|init|rebase|merge|branch|stash|reset|log|diff|fetch|remote|config|tag)"
    r"(?:[ ]+origin(?:[ ]+(?:main|master|HEAD))?)?"
    r"|(?:pip3?|npm|yarn|brew|conda|cargo|gem|apt|apt-get)[ ]+(?:-y[ ]+)?(?:install|uninstall|add|remove)(?:[ ]+[a-z0-9][\w.@/=<>\[\]-]*)?"
    r"|(?:npm|yarn|cargo|docker|kubectl|docker-compose|dotnet|poetry|terraform|conda|apt-get|apt|brew|systemctl)[ ]+"
    r"(?:run|build|test|exec|ps|pull|push|get|apply|describe|logs|update|upgrade|init|publish|up|down|compose|restart|start|stop"
    r"|enable|status|create|delete|mod)(?:[ ]+(?:pods?|nodes?|services?|build|dev|start|test)\b)?"
)
_VERBS = (
    "Get|Set|New|Remove|Add|Start|Stop|Restart|Import|Export|Invoke|Select|Where|ForEach|Write|Read|Out|Test|Copy|Move|Rename|"
    "Install|Uninstall|Enable|Disable|ConvertTo|ConvertFrom|Format|Sort|Measure|Clear|Join|Split|Update|Find"
)
_QUOTED = r"'[^'\n]{1,60}'"
_MESSAGE = (
    rf"{_QUOTED} object (?:is not [a-z]{{4,20}}|has no attribute {_QUOTED}|cannot be [a-z ]{{4,40}})|{_QUOTED}(?!\w)|name {_QUOTED} is not defined"
    rf"|No module named {_QUOTED}|cannot import name {_QUOTED}(?: from {_QUOTED})?|[A-Za-z_$][\w$.]{{0,60}} is not (?:defined|iterable|a function"
    r"|a constructor)|Cannot read propert(?:y|ies) (?:'[^'\n]{1,60}' )?of (?:undefined|null)(?: \(reading '[^'\n]{1,60}'\))?"
    r"|(?:list|string|tuple) index out of range|division by zero|/ by zero|invalid syntax|maximum recursion depth exceeded"
    rf"|unsupported operand type\(s\) for [^\s:]{{1,4}}: {_QUOTED} and {_QUOTED}|invalid literal for int\(\) with base 10: {_QUOTED}"
    rf"|could not convert string to float: {_QUOTED}|Index \d{{1,9}} out of bounds for length \d{{1,9}}"
)
_LATEX = (
    "alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|(?:var)?phi|"
    "chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega|cdot|times|div|pm|mp|leq?|geq?|neq?|approx|equiv|sim|"
    "propto|in|notin|subset|subseteq|cup|cap|to|(?:left|right|Left|Right|long)+arrow|mapsto|infty|partial|nabla|forall|exists|"
    "[lc]?dots|q?quad|text(?:bf|it|tt|rm)?|emph|(?:sub){0,2}section|item|ref|cite|label|title|author|caption|footnote|url|href|"
    "ket|bra|d?dot|tilde|angle|circ|mid|perp|prime|hbar|ell|oplus|otimes|langle|rangle|lfloor|rfloor|lceil|rceil|neg|land|lor|"
    "therefore|because|implies|iff|boxed|displaystyle|limits|tan|cot|sec|exp|ln|det|max|min|sup|inf|gcd|mod|pmod"
)
_LETTER = r"(?:[A-Za-z\U0001d400-\U0001d7ffℝℕℤℚℂ\u0370-\u03ff\u2202\u2206\u2207]|\\[a-zA-Z]{2,12})"
_SUPER = r"(?:[_^](?:\{[^{}\n]{1,60}\}|-?[A-Za-z0-9]{1,4}|\([^()\n]{1,40}\))|['′²³]){0,3}"
_FUNCTION = r"(?:sin|cos|tan|log|ln|exp|lim|max|min|gcd|det|arg|sqrt)"
_WORD = r"(?!sin|cos|tan|log|exp|lim|max|min|gcd|det|arg|sqrt)[A-Za-z]{3}"
_NUMBER = r"(?>\d{1,12}(?:[.,]\d{1,12}){0,2})"
_TERM = (
    rf"(?>[-+−±]?(?:\([ ]?)?{_NUMBER}?(?:{_FUNCTION}{_SUPER}\([^()\n]{{1,30}}\){_SUPER}|√?\((?:[\d +−±*/^.,²³√_|-]|[A-Za-z](?![A-Za-z]{{2}})|√?\((?:[\d +−±*/^.,²³√_|-]|[A-Za-z](?![A-Za-z]{{2}})){{1,40}}\)){{1,60}}\){_SUPER}|{_LETTER}{_SUPER}(?:{_LETTER}{_SUPER})?"
    rf"(?:\([^()\n]{{1,30}}\){_SUPER})?)(?:\s?\))?!?|[-+−±]?(?:\([ ]?)?{_NUMBER}{_SUPER}(?:[ ]?\))?)"
)
_TERMS = rf"{_TERM}(?:[ ]?[-+−±*/·×÷|][ ]?{_TERM}|(?<=\)){_TERM}){{0,8}}+(?!\w)"
_RELATION = r"[ ]?(?:[=≤≥≠≈≡∈∉⊂⊆→∪∩]|<=|>=|:=)[ ]?"
_EQUATION = rf"(?=[-+−±(√\\∀∃\d]|{_LETTER})(?!{_WORD})(?<![\w\u00c0-\u024f\u1e00-\u1eff$°\\^.@/'’-])[∀∃]?(?=[^\n=≤≥≠≈≡∈∉⊂⊆→∪∩<>]{{1,60}}(?:[=≤≥≠≈≡∈∉⊂⊆→∪∩]|[<>:]=)){_TERMS}(?:{_RELATION}{_TERMS}){{1,4}}"

# Lengths are bounded so that no text, however odd, takes quadratic time. ASCII classes keep a URL from running on into
# Chinese or Japanese text, which follows without a space.
KINDS: dict[str, tuple[str, ...]] = {
    "code": (
        r"```[^`\n]{1,1000}```",
        r"``[^\n]{1,500}?``",
        r"`[^`\n]{1,500}`",
    ),
    "formula": (
        r"\$\$(?s:[^$]{1,3000})\$\$",
        # None begins within another: what opens again and again is read once. A pair of backslashes ends a line.
        r"\\\[(?:[^\\]|\\\\|\\(?![\[\]])){1,2000}+\\\]",
        r"\\\((?:[^\\]|\\\\|\\(?![()])){1,500}+\\\)",
        r"\\begin\{(?P<env>(?:align|equation|gather|multline|eqnarray|cases|[a-zA-Z]?matrix|array|split|math|d"
        r"isplaymath|tikzpicture|lstlisting|verbatim|tabular)\*?)\}(?s:.{0,5000}?)\\end\{(?P=env)\}",
        r"(?<![A-Za-z0-9$\\])\$(?=[^\s$])(?=[^$\n]{0,300}[\\^_={}<>+*]|[A-Za-z]\$)[^$\n]{1,300}(?<=\S)\$(?![A-Za-z\d_])",
    ),
    "image": (r"!\[[^\[\]\n]{0,300}\]\([^()\s]{1,2000}(?:\s\"[^\"\n]{0,300}\")?\)",),
    "link_begin": (r"\[(?=[^\[\]\n]{1,300}\]\([^()\s]{1,2000}[\s)])",),
    "link_end": (r"\]\((?=[^()\s]{0,2000}[/.#])[^()\s]{1,2000}(?:\s\"[^\"\n]{0,300}\")?\)",),
    "address": (
        r"(?<![\w:])(?:[0-9a-f]{1,4}:){1,7}(?::[0-9a-f]{1,4}){1,7}(?![\w:])",
        r"[A-Za-z0-9_.-]{1,40}@[A-Za-z0-9.-]{1,80}:[\w./~-]{1,200}",
        r"(?<![A-Za-z0-9])localhost:\d{2,5}(?:/[\w./?=&%-]{0,200})?",
        r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5}|/\d{1,2})?(?![\d.])",
    ),
    "mail": (r"(?:mailto:)?[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",),
    "url": (
        r"https?://(?=[^\x00-\x7f])[^\s，。、！？）」<>\"]{2,200}",
        r"(?<!\w)tel:\+?[\d-]{3,20}",
        r"(?<![A-Za-z0-9./@-])[a-z0-9-]{2,40}(?:\.[a-z0-9-]{2,40}){0,2}\.(?:com|org|net|io|edu|gov)(?!["
        r"\w/-])",
        rf"(?:(?<![A-Za-z0-9])[a-z][a-z0-9+.-]{{1,15}}://|(?<![A-Za-z0-9])www\.)(?:{_URL}|\({_URL}{{0,200}}\))"
        r"{1,2000}(?<![.,;:!?*_])",
        r"(?<![A-Za-z0-9./@-])[a-z0-9-]{2,40}(?:\.[a-z0-9-]{2,40}){0,2}\.(?:com|org|net|io|edu|gov|dev|ai|de|f"
        r"r|uk|cn|jp|ru)/[\w./?=&%#~-]{1,200}",
    ),
    "tag": (
        r"<!--(?s:.{0,2000}?)-->",
        r"<(?P<raw>script|style)\b[^<>]{0,300}>(?s:.{0,5000}?)</(?P=raw)>",
        r"<\?(?:php|xml|=)(?s:.{0,2000}?)\?>",
        r"<%(?s:.{0,500}?)%>",
        r"\{%(?s:.{0,300}?)%\}",
        r"(?<!<)</?[A-Za-z][\w:.-]{0,60}\s{0,3}/?>(?!>)",
        r"<[A-Za-z][\w:.-]{0,40}\s[^<>]{0,600}=(?:[^<>]|=>){0,600}>",
        r"<!DOCTYPE[^<>]{0,200}>",
        r"&(?:[a-zA-Z]{2,8}|\#[0-9]{2,6});",
    ),
    "table": (r"(?m:^[ \t>]*+(?:\|[ \t]*+)?:?-{2,}+:?[ \t]*+(?:\|[ \t]*+:?-{2,}+:?[ \t]*+){1,100}+\|?[ \t]*$)",),
    "placeholder": (
        r"(?<![\w%])%[A-Za-z](?:[-/:., T]{1,2}%[A-Za-z]){1,12}(?![\w%])",
        r"\{\w{1,40}, ?(?:number|date|time|plural|select)\b[^{}\n]{0,40}\}",
        r"\[\[[\w.]{1,40}\]\]",
        r"\{\{[^{}\n]{0,100}\}\}",
        r"[$#]?\{[A-Za-z0-9_.:!\[\]]{0,60}\}",
        r"\$[A-Z_][A-Z0-9_]{1,60}(?![A-Za-z0-9_])(?:/[\w.@-]{1,60}(?<!\.)){0,12}",
        r"(?<![A-Za-z0-9_%])%(?:\([A-Za-z_][A-Za-z0-9_]{0,60}\)|[1-9]\$)?[-+0#]?\d{0,3}(?:\.\d{1,2})?[sdifgrxu"
        r"@](?![A-Za-z0-9_%])",
        r"(?<![\w%])%[A-Z][A-Z0-9_]{2,40}%(?:\\[\w.-]{1,60}){0,10}",
    ),
    "literal": (
        r"(?<![A-Za-z0-9])0[bo][01]{2,64}(?![A-Za-z0-9])",
        r"(?<![\w.])v?\d+\.\d+\.\d+-[a-z]\w*(?:\.\d+)?",
        r"(?<!\w)(?:sha\d{1,3}|md5):[0-9a-f]{8,128}",
        r"(?<![\w-])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?![\w-])",
        r"(?<![A-Za-z0-9])0x[0-9A-Fa-f]{2,64}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{32,128}(?![A-Za-z0-9])",
        r"(?<![\w&])#(?=[0-9a-fA-F]*\d)(?:[0-9a-fA-F]{3}){1,2}(?=[\s,;.)]|$|[^\x00-\x7f])(?<!#\d)(?<!#\d\d)(?<"
        r"!#\d{3})",
    ),
    "error": (
        rf"(?<![\w.])(?:Uncaught[ ])?(?:[a-z]\w{{0,40}}\.){{0,8}}(?:[A-Z][a-z0-9]{{1,30}}){{1,6}}(?:Error|Exception):[ ](?:{_MESSAGE})",
        r"(?<!\d)\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[\d.,+Z:-]{0,12}[ ]+\[?(?:DEBUG|INFO|WARN|WARNING|ERROR|FATAL|TRACE|CRITICAL)\b\]?:?"
        r"(?:[ ]+\[[\w./:-]{1,60}\])?(?:[ ]+[\w.]{1,60}:(?!\S))?(?:[ ]+(?:connection (?:refused|reset|closed|timed out)"
        r"|permission denied|out of memory|file not found|timeout)\b)?",
        r"(?<!\w)(?:SIG(?:SEGV|KILL|TERM|INT|ABRT|HUP|BUS|FPE|PIPE)|E(?:CONN[A-Z]+|NOENT|ACCES|ADDRINUSE|PERM|"
        r"EXIST|TIMEDOUT|NOTFOUND|PIPE|INVAL))(?!\w)",
        r"(?<![\w.])(?:[a-z]\w*\.){0,8}(?:[A-Z][a-z0-9]+){1,6}(?:Error|Exception)(?![\w])",
        r"\[(?:DEBUG|INFO|WARN|WARNING|ERROR|FATAL|TRACE)\][ ][\w.]+:",
        r"(?<![\w/])[\w./-]{1,80}\.\w{1,4}:\d{1,6}(?::\d{1,5})?(?::(?= ))?",
    ),
    "regex": (
        r"\[\^?(?:a-z|A-Z|0-9){2,3}\]",
        r"\[\^(?:a-z|A-Z|0-9)\]",
        r"(?<![\w\\])/(?=[^\s/]{0,200}(?:\\[dwsbDWSB./]|\[[^\]\s]{1,40}\][+*?{]|\.[*+]))(?:[^\s/\\]|\\.){2,200"
        r"}/[gimsuy]{0,5}(?!\w)",
        r"(?<![^\s\u0590-\uffff(\"'“«])(?![A-Za-z]:\\)(?=[^\s\\\]?*+^]{0,250}+[\\\]?*+^])(?=[!-~]{0,200}(?:\\[dwsbDWSB](?![A-Za-z]{2})|\\b\w{1,30"
        r"}\\b|\(\?[:=!<Pi]|\[\^?[^\]\s]{1,40}+\](?:[+*?]|\{\d)|\.[*+](?:[\\$?)]|\w)|\\\.|\)[+*]\??(?![\w*])|\^"
        r"\[))[!-~]{3,300}(?<![.,;:!?])",
    ),
    "formula_run": (
        rf"{_EQUATION}",
        r"(?<!\w)[PE]\([A-Za-z]\s?[<>=≤≥|]\s?[\w.]{1,10}\)",
        r"(?<![A-Za-z0-9_])[a-z]\([a-z][-+*/^]\d\)(?:[/*^]\d{1,3})?(?!\w)",
        r"\\(?:[dt]?frac|sqrt|sum|int|prod|lim|binom|vec|hat|bar|overline|mathbb|mathbf|mathcal|mathrm|operato"
        r"rname|left|right|log|sin|cos)(?:\[[^\]\n]{0,30}\])?(?:[_^]?\{(?:[^{}\n]|\{(?:[^{}\n]|\{[^{"
        r"}\n]{0,60}\}){0,100}\}){0,200}\}|[_^]\w){0,4}(?:[ ]?[a-z](?![A-Za-z]))?",
        r"\\(?:begin|end)\{[A-Za-z]{1,20}\*?\}",
        rf"\\(?:{_LATEX})\*?(?![A-Za-z])(?:\{{[^{{}}\s]{{1,60}}\}})?",
        r"[∫∑∏√∂∇](?:[_^](?:\w|\{[^{}\n]{1,30}\}))*\s?(?:[\w^()+*/-]{1,20})(?:\sd[a-z]\b)?",
        r"(?<![\w])[OΘΩ]\((?=[^()\n]*[nNkmVE])[^()\n]{1,30}(?:\([^()\n]{1,10}\))?\)",
        r"(?<![A-Za-z0-9_])[A-Za-z]_(?:\d{1,2}|[a-z])(?:, [A-Za-z]_(?:\d{1,2}|[a-z])|, \.\.\.){1,8}(?!\w"
        r")",
        r"(?<![A-Za-z0-9_^\\])(?:\d{0,4}[A-Za-z]|\d{1,6}|\))\^(?:\{[^{}\n]{1,60}\}|-?\w{1,3}|\([^("
        r")\n]{1,30}\))(?!\w)",
    ),
    "path": (
        r"(?<![\w\\])[A-Za-z]:\\{1,2}(?:[\w .()-]{1,60}\\{1,2}){0,15}[\w.()-]{1,80}",
        r"(?<![\w\\])[A-Za-z]:/(?:[\w.()-]{1,60}/?){1,15}",
        r"(?<![\w\\])\\\\[\w.-]{1,60}(?:\\[\w$.-]{1,60}){1,10}",
        r"(?<![\w/.~])(?:~|\.{1,2})/[\w.@+*-]{1,80}(?:/[\w.@+*-]{1,80}){0,15}/?",
        rf"(?<![\w/.:<>])/(?:{_ROOTS})(?![\w-])(?:/[\w.@+*-]{{1,80}}){{0,15}}/?",
        r"(?<![\w/.:<>])/[a-z][\w.@+-]{1,60}(?:/[\w.@+{}:-]{2,60}){1,15}/?",
        rf"(?<![\w/.])(?:{_FOLDERS})/(?:[\w.@+*-]{{1,80}}/?){{0,12}}(?<![.,])",
        rf"(?<![\w/.@-])(?:[\w@-]{{1,60}}/){{1,10}}[\w.-]{{1,60}}\.(?:{_SUFFIXES})(?!\w)",
        rf"(?<![\w/@.-])(?![A-Z][a-z]+\.js\b)(?:[\w-]{{1,60}}\.){{1,4}}(?:{_SUFFIXES})(?![\w(])(?!\.\w)",
        r"(?<![\w/.@-])(?:[\w@-]{1,60}/){2,10}[\w.-]{1,60}\.(?![A-Z][a-z])\w{1,5}(?![\w.])",
        r"(?<![\w/@.-])(?:[a-z_]{3,40}\.[ch]|\.(?:gitignore|env|bashrc|zshrc|htaccess|dockerignore|npmrc|vimrc"
        r"))(?![\w])",
        r"(?<!\w)(?:Dockerfile|Makefile)(?!\w)",
    ),
    "command": (
        r"(?<![\w./-])(?:docker|podman)[ ]+run(?:[ ]+-{1,2}[A-Za-z][\w-]{0,30}(?:[= ](?=[^\s]{0,80}[\d:/=])[^\s]{1,80})?){1,12}[ ]+"
        r"[a-z][\w./:-]{0,80}(?<![.,:])",
        rf"(?<![\w-])(?:{_VERBS})-[A-Z][A-Za-z]{{2,30}}(?![\w-])(?:[ ]+(?:-[A-Z][A-Za-z]{{1,20}}|[\w/\\-]{{0,40}}[*./\\]"
        r"[*\w./\\-]{0,40}(?<![.,])|\"[^\"\n]{0,80}\"|'[^'\n]{0,80}'|(?:[A-Z][a-z]{1,20}){2,4}\b)){0,12}",
        r"(?<![\w./-])[jy]q[ ]+(?:-{1,2}\w{1,20}[ ]+){0,4}'[^'\n]{1,200}'(?:[ ]+[\w./-]{1,80}\.\w{1,5})?",
        r"(?<![\w./$@-])(?:pip3?|npm|yarn|brew|conda|cargo|gem|apt|apt-get)[ ]+(?:install|add|remove|uninstall"
        r")(?:[ ]+-{1,2}[\w-]+){0,4}[ ]+(?![a-z]+[.,!?]?$)[a-z0-9][\w.@/=<>\[\]-]*"
        # Only a text in another script says where a list of packages ends.
        r"(?:(?:[ ]+[a-z@][\w.@/=<>\[\]-]{0,60}){1,12}+(?=[ ]?[\u0370-\u1dff\u2e80-\ud7ff]))?",
        r"(?<!\w)(?:git[ ]+stash[ ]+(?:pop|list|apply|drop)|kill[ ]+-\d{1,2}[ ]+\d+|npx[ ]+[a-z][\w@/.-]*-["
        r"\w@/.-]+(?:[ ]+[\w.]+-[\w-]+)?|systemctl[ ]+(?:start|stop|restart|enable|disable|status)[ ]+[a-z][\w"
        r".@-]*)(?!\w)",
        rf"(?<![\w./$@-])(?!(?:{WORDS})[ ]+[^-./~$*](?!\S*(?:://|\.(?:py|sh|txt|csv|js|json|md|log|java|c|go|rb"
        rf")\b|[A-Z]=)))(?:sudo[ ]+)?(?:{COMMANDS})(?:[ ]+(?:run|exec|compose|get|install|build)(?:[ ]+[a-z]+)?"
        r"(?=[ ]+-))?(?=[ ]+(?:-{1,2}[A-Za-z]|[~.]{0,2}/[\w.*]|~(?=\s)|\$[A-Z{]|\.(?=[ ])|[|]|[\"'][^\"'"
        rf"\n]{{1,200}}[\"']|\+x|(?!\d)\S+[/=:@]\S+|(?!\d)\S+\.\w)){_COMMAND_PART}{{1,20}}(?:[ ]+(?:bash|sh|bui"
        r"ld|python3?|nginx|ubuntu|make|[a-z]+(?=[ ]+[|&])))*",
        rf"(?<![\w./$@-])(?:{_SUBCOMMANDS}){_COMMAND_PART}{{0,20}}",
        r"(?<![\w.-])ps[ ]+aux(?:[ ]*\|[ ]*grep[ ]+[\w.-]+)?",
        r"(?<![\w.-])sudo[ ]+(?:apt(?:-get)?|yum|dnf|pacman|systemctl|service)[ ]+[a-z-]+(?:[ ]+[\w.-]+(?=[ ]*"
        r"(?:$|\n|&&)))?",
        r"(?<![\w./-])--(?:[a-z]{2,20}(?:-[a-z0-9]{1,20})+|[a-z]{2,20}=[^\s,;]{1,60}|(?:help|version|verbose|f"
        r"orce|all|quiet|recursive|debug|global))(?![\w-])",
    ),
    "call": (
        r"(?<![\w.$@])(?!function def )(?:(?:async|def|fn|func|function|fun|sub|void|int|public|private|protected|static|final|"
        r"String|bool|float|double) ){1,5}[A-Za-z_]\w{2,}\([^()\n]{0,100}\)(?: ?(?:->|:) ?[a-z][\w<>\[\]]*(?!["
        r"\w ]*[.!?]))?(?::? return [\w.]+(?: [-+*/%] [\w.]+)*)?",
        r"(?<![\w.$@])[A-Za-z_]\w+\((?=[^()\n]{0,60}(?:\w\(|\[))(?:[^()\n]|\((?:[^()\n]|\([^()\n]{0,60}\)){0,1"
        r"00}\)){1,200}\)",
        r"(?<![\w.$@])[A-Za-z_]\w+\((?:\"[^\"\n]{0,80}\"|'[^'\n]{0,80}')\)",
        r"(?<![\w.$@])[A-Za-z_]\w*\([^()\n]{0,40}\)\([^()\n]{0,40}\)",
        r"(?<![\w.$@])(?:try|else|do|if|for|while|switch|catch)\s?(?:\([^()\n]{0,80}\)\s?)?\{[^{}\n]{0,200}\}("
        r"?:\s?(?:else|catch|finally|while)\s?(?:\([^()\n]{0,80}\)\s?)?(?:\{[^{}\n]{0,200}\})?){0,3}",
        r"(?<![\w.$@])while \((?:true|True|1|!\w+)\)",
        r"(?<![\w.$@\\])(?:sqrt|sin|cos|tan|log|ln|exp|max|min|abs|floor|ceil)\((?=[^()\n]{0,30}[\d+*/^]|[a-z]"
        r"\))[\w\s+*/^.,-]{1,40}(?:\([\w\s+*/^.,-]{1,30}\)){0,2}[\w\s+*/^.,-]{0,30}\)(?!\w)",
        r"(?<![\w.$])(?:for|while|if)\s?\((?:[^()\n]|\([^()\n]*\)){1,200}(?:;|[=!<>]=|[<>]\s?\d|\+\+)(?:[^()\n"
        r"]|\([^()\n]*\)){0,200}\)(?:\s*\{[^{}\n]{0,300}\})?",
        r"(?<![\w.$@])(?:new[ ])?(?:[A-Za-z_$][\w$]{0,60}(?:\.|->|::)){0,8}[A-Za-z_$][\w$]{0,60}\(\)(?:\.\w{1,"
        r"40}(?:\([^()\n]{0,80}\))?){0,8};?",
        r"(?<![\w.$@])(?:[a-zA-Z_$][\w$]{1,60}(?:\.|->|::)){1,8}[A-Za-z_$][\w$]{0,60}\((?:[^()\n]|\((?:[^()\n]"
        r"|\([^()\n]{0,60}\)){0,100}\)){1,200}\)(?:\.\w{1,40}(?:\([^()\n]{0,80}\))?){0,8};?",
        r"(?<![\w.$@])(?:[a-z]\w{0,40}_\w{1,40}|[a-z]{1,40}[A-Z]\w{1,40}|print|printf|len|range|malloc|calloc|"
        r"sizeof|console|alert|require|println|echo|input)\((?:[^()\n]|\((?:[^()\n]|\([^()\n]{0,60}\)){0,100}"
        r"\)){1,200}\);?",
        r"(?<![\w.$@])=[A-Z]{2,12}\([^\n()]{0,100}(?:\([^\n()]{0,60}\)[^\n()]{0,60}){0,4}\)",
    ),
    "statement": (
        r"(?<!\w)(?:if|while|until)[ ]\[{1,2}[ ][^\n;]{1,120}[ ]\]{1,2};[ ](?:then|do)[ ][^\n]{1,200}?;[ ](?:fi|done)(?!\w)",
        r"(?<!\w)for[ ]\w{1,40}[ ]in[ ][^\n;]{1,120};[ ]do[ ][^\n]{1,200}?;[ ]done(?!\w)",
        r"(?<!\w)(?:COPY|ADD|RUN|FROM|ENV|WORKDIR|EXPOSE|ENTRYPOINT|CMD)[ ](?=--\w|\.{0,2}/|\[\"|[\w./-]{1,60}:\w)[^\s]{1,100}"
        r"(?:[ ](?=[^\s]{0,80}[/:.=])[^\s]{1,100}(?<![.,;:?])){0,6}",
        r"\"[\w.-]{1,60}\": ?(?:true|false|null|-?\d[\d.]{0,20}|\"[^\"\n]{0,100}\")(?!\w)",
        r"(?<!\w)(?:GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS)[ ]+/[\w./{}:?=&%-]{0,200}(?<![.,:?])",
        r"(?<!\w)[A-Z][a-z]{1,20}(?:-[A-Z][a-z]{1,20}){0,4}:[ ](?:Bearer|Basic)[ ][\w.=+/-]{4,400}(?<!\.)",
        r"(?<!\w)(?:Content-(?:Type|Encoding|Disposition|Length|Language)|Accept(?:-Encoding|-Language)?|Cache-Control|User-Agent"
        r"|Access-Control-[A-Z][A-Za-z-]{2,40}|X-[A-Z][A-Za-z-]{2,40}):[ ](?=[^\s]{0,80}[/=*\d-]|gzip|identity|true|false)[^\s;,]{1,120}"
        r"(?:[;,][ ]?[\w*+/-]{1,40}(?:[=/][^\s;,]{1,60})){0,6}(?<![.,;:!?])",
        r"(?<![\w.#-])(?:[.#][a-z][\w-]{0,60}|[a-z][\w-]{0,30}[.#:][a-z][\w-]{0,60})(?:[.#:]{1,2}[a-z][\w-]{0,60}){0,6}[ ]?"
        r"\{[ ]?[a-z-]{2,40}:[^{}\n]{1,200}\}",
        r"\[[^\[\]\n]{1,60} for \w+ in [^\[\]\n]{1,60}\]",
        r"(?<![\w.])\w+ if \w+ [<>=!]{1,2} [\w.]+ else -?\w+",
        r"(?<![\w.])[a-z]\w{0,40}\?\.[a-z]\w{0,40}",
        r"(?<!\w)@(?:Override|Test|Autowired|Deprecated|Nullable|staticmethod|classmethod|property)(?!\w)",
        r"(?<!\w)(?:WHERE|HAVING|ORDER BY|GROUP BY|LIMIT|JOIN|VALUES)\s[\w.]+\s?(?:[<>=!]{1,2}|IN|LIKE)\s?(?:'"
        r"[^'\n]{0,60}'|\([^()\n]{0,80}\)|[\w.]+)",
        r"(?<![\w.])[a-z_]\w{0,40} ?= ?(?:\[[^\[\]\n]{0,200}\]|\"[^\"\n]{0,100}\"|'[^'\n]{0,100}'|\{[^{}\n]{0,"
        r"200}\})(?!\w);?",
        r"(?<![\w.])[A-Za-z_]\w{0,40} ?(?:[<>]=?|[!=]=) ?\w+ ?(?:&&|\|\|) ?[A-Za-z_!]\w{0,40}(?: ?(?:[<>]=?|[!=]=) ?\w+)?",
        r"#include\s*[<\"][\w./]+[>\"]",
        r"(?<!\w)import [\w.]+ as \w+",
        r"(?<!\w)from (?:[\w.]{0,60}[._][\w.]{0,60}|(?:numpy|pandas|torch|os|sys|re|typing|collections|datetim"
        r"e|sklearn|math|random|json)) import \w+(?:, \w+)*",
        r"(?<!\w)lambda(?: \w+(?:, ?\w+)*)?: [\w.()\[\]]+(?: [-+*/%<>=!]{1,2} [\w.()\[\]]+)*",
        r"(?<!\w)(?:int|void) \w+\([\w ,*&\[\]]*\)",
        r"(?<!\w)(?:const|let|var|int|float|double|char|String|auto|val) [A-Za-z_$][\w$]{0,40}(?:\[\w{0,40}\])"
        r"? ?= ?[^\s;][^;\n]{0,100};",
        r"(?<!\w)return [\w.\[\]()]+(?: [-+*/%<>=!&|]{1,2} [\w.\[\]()]+)*;",
        r"(?<![\w.])[A-Za-z_][\w.]{0,60}\[[\w+ -]{1,20}\](?:\[[\w+ -]{1,20}\])*(?: ?[-+*/]?= ?[\w.]+(?:\[[\w+ "
        r"-]{1,20}\])*)?(?!\w)",
        r"(?<![\w.])[A-Za-z_][\w.\[\]]{0,60} ?(?:===?|!==?) ?(?:[A-Za-z_\d][\w.\[\]]*|\"[^\"\n]*\"|'[^'\n]*')("
        r"?: ?(?:&&|\|\|) ?[A-Za-z_][\w.\[\]]* ?(?:[=!]==?|[<>]=?) ?[\w.\"']+)*",
        r"(?<![\w.])[A-Za-z_]\w{0,40} [-+*/]= [\w.]+",
        r"(?<![\w.])[A-Za-z_]\w{0,40}(?:->|::)[A-Za-z_]\w{0,40}(?:(?:->|::|\.)\w+)*(?:<[\w:, *]{1,40}>)?",
        r"(?<![\w.])(?:List|Map|Set|Vec|Option|Result|Array|HashMap|ArrayList|Dict|Optional|Promise|vector|uni"
        r"que_ptr|shared_ptr)<[\w:, *<>\[\]]{1,60}>",
        r"(?<![\w.])[A-Za-z]\w{0,40}(?:\+\+|--)(?=[;)])",
    ),
    "name": (
        r"(?<![\w\\])(?:[A-Z]\w{1,40}\\){1,6}[A-Z]\w{1,40}(?!\w)",
        r"(?<![\w@/.*-])(?!\w*_(?:in|innen|r|n|rin|rinnen)(?!\w))_{0,2}[a-zA-Z][a-zA-Z0-9]{0,40}(?:_[a-zA-Z0-9"
        r"]{1,40}){1,8}_{0,2}(?![\w*])",
        r"(?<!\w)__[a-z]{2,20}__(?!\w)",
        r"(?<![\w@.-])(?:get|set|is|has|on|to|add|remove|create|delete|update|find|load|save|handle|use|make|f"
        r"etch|parse|render|init|my|num|max|min|read|write|send|check|calc|calculate|compute|print|show|build|"
        r"run|start|stop|open|close|convert|user|file|inner|data)[A-Z][a-z]\w{1,40}(?!\w)",
        r"(?<![\w@.])(?:self|this|np|pd|plt|tf|torch|os|sys|math|json|re|random|datetime|df|req|res|response|r"
        r"equest|document|window|process|module|console|System|std|cv2|nn|sklearn|django|flask|requests|numpy|"
        r"pandas|collections)(?:\.[A-Za-z_]\w{0,40}){1,6}(?!\w)",
    ),
}
