"""The many ways in which data sets name a language, and the one code that each stands for."""

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
"""Codes that stand for several languages: three letters after them are one of these, but for the countries above."""


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

    Understood are ISO 639-1 and 639-3 codes, FLORES-200 codes, regional tags (``pt-BR``, ``zh_TW``) and English
    names, in any case. A script goes before a region (``zh-Hans-TW``); one that is not the language's own
    (``hi-Latn``), and another language within the tag (``zh-yue``), make it the name of no known language.
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
        telling = scripts - {"hani"} or others  # of a region only where no script is told
        found = "zh-Hant" if any(_NAMES.get(f"zh_{part}") == "zh-Hant" for part in telling) else "zh"
    own = {LANGUAGES[found].script, *LANGUAGES[found].scripts}
    return found if scripts <= {script.lower() for script in own} else None


def _is_other_language(part: str, code: str) -> bool:
    """Whether a part of a tag that begins with a language names another one, or one of those that it is made up of."""
    is_language = code in _MACROLANGUAGES and len(part) == 3 and part.isalpha()
    return is_language and code not in {_NAMES.get(part), _NAMES.get(f"{code}_{part}", "").partition("-")[0]}
