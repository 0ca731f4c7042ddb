"""Words of a line as the Language Confusion Benchmark counts them: jieba for Chinese, MeCab with UniDic for Japanese.

Both packages are loaded when the first line of their language comes.
"""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

from schemas.extras import require
from schemas.languages import LANGUAGES

_Segmenter: TypeAlias = Callable[[str], list[str]]


def split_words(line: str, language: str) -> list[str]:
    """Return the words of a line: by a dictionary in Chinese and Japanese, between white space in other languages.

    What jieba returns for a space counts as a word, as it does in the benchmark.
    """
    match LANGUAGES[language].detector_code:
        case "zh":
            return _load_jieba()(line)
        case "ja":
            return _load_mecab()(line)
        case _:
            return line.split()


@cache
def _load_jieba() -> _Segmenter:
    require(("jieba",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports the deprecated pkg_resources where that is installed
        import jieba

        tokenizer = jieba.Tokenizer()
        # What initialize() does, less its log lines and its cache: a file in the shared temporary folder under a name
        # that anyone may have taken.
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return lambda line: list(tokenizer.cut(line))


@cache
def _load_mecab() -> _Segmenter:
    require(("fugashi", "unidic_lite"))
    import fugashi
    import unidic_lite

    # Named, because fugashi prefers the large UniDic where that is installed too.
    folder = Path(unidic_lite.DICDIR)
    tagger = fugashi.Tagger(f'-r "{folder / "mecabrc"}" -d "{folder}"')
    return lambda line: [word.surface for word in tagger(line)]
