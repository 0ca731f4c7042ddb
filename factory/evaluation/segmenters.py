"""Splitting lines into words as the Language Confusion Benchmark does: with jieba for Chinese, MeCab for Japanese.

Both packages are loaded at the first line of their language.
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
    """Return the words of a line, by dictionary in Chinese and Japanese, otherwise by white space.

    jieba returns a space as a word, which counts as one in the benchmark and therefore here.
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
        warnings.simplefilter("ignore")  # jieba imports the deprecated pkg_resources if that is installed
        import jieba

        tokenizer = jieba.Tokenizer()
        # The same as initialize(), without its log lines and its cache, which is a file with a fixed name in the shared
        # temporary folder: another user may own it.
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return lambda line: list(tokenizer.cut(line))


@cache
def _load_mecab() -> _Segmenter:
    require(("fugashi", "unidic_lite"))
    import fugashi
    import unidic_lite

    # The dictionary is given explicitly, because fugashi prefers the full UniDic if that is installed too.
    folder = Path(unidic_lite.DICDIR)
    tagger = fugashi.Tagger(f'-r "{folder / "mecabrc"}" -d "{folder}"')
    return lambda line: [word.surface for word in tagger(line)]
