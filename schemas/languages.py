"""The 23 languages of the recipe, the many names that data sets use for them, and the clusters that models are trained on.

The codes are ISO 639-1, as in fastText's lid.176; ``flores`` is the FLORES-200 code that NLLB-class translators expect.
"""

import re
from dataclasses import dataclass

_JOINT_SCRIPTS = {"Jpan": ("Hira", "Kana", "Hani"), "Hans": ("Hani",), "Hant": ("Hani", "Bopo")}
"""ISO 15924 codes that stand for several Unicode scripts, or for a part of one."""

MIN_SCRIPT_SHARE = 0.5
"""Default for the minimum share of a text's letters that must be in its language's script."""

SHARED_LANGUAGES = ("en", "es", "fr")
"""Languages that every family cluster shares (Aya Expanse, section 2.3)."""


@dataclass(frozen=True, slots=True)
class Language:
    """One language: its code, English name, ISO 15924 script, FLORES-200 code, family and family cluster."""

    code: str
    name: str
    script: str
    flores: str
    family: str
    cluster: str

    @property
    def scripts(self) -> tuple[str, ...]:
        """The Unicode scripts of its letters, as ISO 15924 codes. Simplified and traditional Chinese share Hani."""
        return _JOINT_SCRIPTS.get(self.script, (self.script,))

    @property
    def is_right_to_left(self) -> bool:
        return self.script in {"Arab", "Hebr"}

    @property
    def is_spaced(self) -> bool:
        """Whether words are separated by spaces."""
        return self.script not in {"Hans", "Hant", "Jpan"}

    @property
    def detector_code(self) -> str:
        """The label in fastText's lid.176, which does not distinguish the two kinds of Chinese."""
        return self.code.partition("-")[0]


_ALL = (
    Language("ar", "Arabic", "Arab", "arb_Arab", "Semitic", "middle_eastern"),
    Language("cs", "Czech", "Latn", "ces_Latn", "Slavic", "slavic"),
    Language("de", "German", "Latn", "deu_Latn", "Germanic", "european"),
    Language("el", "Greek", "Grek", "ell_Grek", "Hellenic", "european"),
    Language("en", "English", "Latn", "eng_Latn", "Germanic", "european"),
    Language("es", "Spanish", "Latn", "spa_Latn", "Romance", "european"),
    Language("fa", "Persian", "Arab", "pes_Arab", "Iranian", "middle_eastern"),
    Language("fr", "French", "Latn", "fra_Latn", "Romance", "european"),
    Language("he", "Hebrew", "Hebr", "heb_Hebr", "Semitic", "middle_eastern"),
    Language("hi", "Hindi", "Deva", "hin_Deva", "Indo-Aryan", "asian"),
    Language("id", "Indonesian", "Latn", "ind_Latn", "Malayo-Polynesian", "asian"),
    Language("it", "Italian", "Latn", "ita_Latn", "Romance", "european"),
    Language("ja", "Japanese", "Jpan", "jpn_Jpan", "Japonic", "asian"),
    Language("ko", "Korean", "Hang", "kor_Hang", "Koreanic", "asian"),
    Language("nl", "Dutch", "Latn", "nld_Latn", "Germanic", "european"),
    Language("pl", "Polish", "Latn", "pol_Latn", "Slavic", "slavic"),
    Language("pt", "Portuguese", "Latn", "por_Latn", "Romance", "european"),
    Language("ro", "Romanian", "Latn", "ron_Latn", "Romance", "european"),
    Language("ru", "Russian", "Cyrl", "rus_Cyrl", "Slavic", "slavic"),
    Language("tr", "Turkish", "Latn", "tur_Latn", "Turkic", "middle_eastern"),
    Language("uk", "Ukrainian", "Cyrl", "ukr_Cyrl", "Slavic", "slavic"),
    Language("vi", "Vietnamese", "Latn", "vie_Latn", "Austroasiatic", "asian"),
    Language("zh", "Chinese", "Hans", "zho_Hans", "Sinitic", "asian"),
)
_VARIANTS = (Language("zh-Hant", "Traditional Chinese", "Hant", "zho_Hant", "Sinitic", "asian"),)

LANGUAGES: dict[str, Language] = {language.code: language for language in (*_ALL, *_VARIANTS)}
"""All languages that a recipe may name, by code: the 23 and the optional variants."""

CORE_LANGUAGES: tuple[str, ...] = tuple(language.code for language in _ALL)
"""The codes of the 23 languages, in alphabetical order."""


def _members(cluster: str) -> tuple[str, ...]:
    own = {language.code for language in _ALL if language.cluster == cluster}
    return tuple(sorted(own | set(SHARED_LANGUAGES)))


CLUSTERS: dict[str, tuple[str, ...]] = {
    name: _members(name) for name in ("european", "slavic", "middle_eastern", "asian")
}
"""Language codes by family cluster. The paper does not publish its clusters; these follow family and region."""

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
