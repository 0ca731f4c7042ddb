"""The 23 languages of the recipe and the family clusters that models are trained on.

The codes are ISO 639-1, as in fastText's lid.176; ``flores`` is the FLORES-200 code that NLLB-class translators expect.
"""

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
