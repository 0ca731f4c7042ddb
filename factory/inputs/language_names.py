"""Maps the many names that data sets use for languages to the codes of ``schemas.languages``."""

import re

from schemas.languages import LANGUAGES

_OTHER_NAMES = {
    "zh": "zho chi cmn hans mandarin simplified_chinese chinese_simplified mandarin_chinese zh_chs zh_chn zh_sgp",
    "zh-Hant": "hant chinese_traditional zh_cht zh_tw zh_hk zh_mo zh_twn zh_hkg zh_mac cmn_hant chinese_taiwan",
    "ar": "ara standard_arabic modern_standard_arabic msa ar_are ar_bhr ar_dza ar_egy ar_irq ar_jor ar_kwt ar_lbn ar_lby "
    "ar_mar ar_omn ar_pse ar_qat ar_sau ar_sdn ar_syr ar_tun ar_yem",
    "cs": "cze",
    "de": "ger",
    "el": "gre modern_greek",
    "es": "castilian",
    "fa": "fas per farsi iranian_persian western_persian fa_irn fa_afg",
    "fr": "fre",
    "he": "iw",
    "id": "in bahasa_indonesia",
    "nl": "dut flemish",
    "pt": "brazilian_portuguese",
    "ro": "rum mo moldavian",
    "uk": "ukranian",
}

_MACROLANGUAGES = {"ar", "fa", "zh"}
"""Codes that cover several languages: a three-letter part after one names such a language, unless it is a country that
is listed above."""


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
_SCRIPTS = {script.lower() for language in LANGUAGES.values() for script in (language.script, *language.scripts)}


def find_language(name: str) -> str | None:
    """Return the code of ``schemas.languages`` that a name stands for, or None if it stands for no known language.

    ISO 639-1 and 639-3 codes, FLORES-200 codes, regional tags (``pt-BR``, ``zh_TW``) and English names are understood,
    in upper or lower case. A script takes precedence over a region (``zh-Hans-TW``). A tag with a script that is not
    the language's own (``hi-Latn``), or with another language in it (``zh-yue``), is unknown.
    """
    normal = _normalise(name)
    code = _NAMES.get(normal)
    if code is not None:
        return code
    first, *others = normal.split("_")
    if len(first) not in {2, 3} or not all(2 <= len(part) <= 4 for part in others):
        return None
    found = _NAMES.get(first)
    if found is None or any(_is_other_language(part, found) for part in others):
        return None
    scripts = {part for part in others if part in _SCRIPTS}
    if found == "zh":
        telling = scripts - {"hani"} or others  # the region decides only if no script does
        found = "zh-Hant" if any(_NAMES.get(f"zh_{part}") == "zh-Hant" for part in telling) else "zh"
    own = {LANGUAGES[found].script, *LANGUAGES[found].scripts}
    return found if scripts <= {script.lower() for script in own} else None


def _is_other_language(part: str, code: str) -> bool:
    """Whether a later part of the tag names another language, or one of the languages that ``code`` covers."""
    is_language = code in _MACROLANGUAGES and len(part) == 3 and part.isalpha()
    return is_language and code not in {_NAMES.get(part), _NAMES.get(f"{code}_{part}", "").partition("-")[0]}
