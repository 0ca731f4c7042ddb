"""The many ways in which data sets name a language, and the one code that each stands for."""

import re

from schemas.languages import LANGUAGES

_OTHER_NAMES = {
    "zh": "zho chi cmn hans mandarin simplified_chinese chinese_simplified mandarin_chinese zh_chs",
    "zh-Hant": "hant chinese_traditional zh_cht zh_tw zh_hk zh_mo cmn_hant chinese_taiwan",
    "ar": "ara standard_arabic modern_standard_arabic msa",
    "cs": "cze",
    "de": "ger",
    "el": "gre modern_greek",
    "es": "castilian",
    "fa": "fas per farsi iranian_persian western_persian",
    "fr": "fre",
    "he": "iw",
    "id": "in bahasa_indonesia",
    "nl": "dut flemish",
    "pt": "brazilian_portuguese",
    "ro": "rum mo moldavian",
    "uk": "ukranian",
}


def _all_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for code, language in LANGUAGES.items():
        own = {code, language.name, language.flores, *_OTHER_NAMES.get(code, "").split()}
        names.update({_normalise(name): code for name in own})
    for code, language in LANGUAGES.items():
        names.setdefault(language.flores.partition("_")[0], code)
    return names


def _normalise(name: str) -> str:
    return re.sub(r"[\s_(),-]+", "_", name.strip().lower()).strip("_")


_NAMES = _all_names()


def find_language(name: str) -> str | None:
    """Return the code of ``schemas.languages`` that a name stands for, or None if it stands for no known language.

    Understood are ISO 639-1 and 639-3 codes, FLORES-200 codes, regional tags (``pt-BR``, ``zh_TW``) and English
    names, in any case.
    """
    normal = _normalise(name)
    code = _NAMES.get(normal)
    if code is not None:
        return code
    # A region, script or encoding after a known code ("pt-BR", "zh-Hans-CN", "eng_Latn") says no more about it.
    parts = normal.split("_")
    if len(parts[0]) not in {2, 3} or not all(2 <= len(part) <= 4 for part in parts[1:]):
        return None
    found = _NAMES.get("_".join(parts[:2])) or _NAMES.get(parts[0])
    return "zh-Hant" if found == "zh" and parts[1:] and set(parts[1:]) & {"hant", "tw", "hk", "mo"} else found
