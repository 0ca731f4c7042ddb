import pytest

from schemas.languages import CLUSTERS, CORE_LANGUAGES, LANGUAGES, SHARED_LANGUAGES

PAPER = [
    "ar",
    "zh",
    "cs",
    "nl",
    "en",
    "fr",
    "de",
    "el",
    "he",
    "hi",
    "id",
    "it",
    "ja",
    "ko",
    "fa",
    "pl",
    "pt",
    "ro",
    "ru",
    "es",
    "tr",
    "uk",
    "vi",
]
"""The languages of Aya Expanse."""


def test_the_languages_are_those_of_the_paper():
    assert sorted(CORE_LANGUAGES) == sorted(PAPER)
    assert set(LANGUAGES) == {*PAPER, "zh-Hant"}
    assert all(code == language.code for code, language in LANGUAGES.items())


@pytest.mark.parametrize(
    ("code", "flores"),
    [("ar", "arb_Arab"), ("fa", "pes_Arab"), ("he", "heb_Hebr"), ("zh", "zho_Hans"), ("zh-Hant", "zho_Hant")],
)
def test_flores_codes_are_those_of_nllb(code, flores):
    assert LANGUAGES[code].flores == flores


def test_flores_codes_name_the_script_and_no_two_languages_share_one():
    assert len({language.flores for language in LANGUAGES.values()}) == len(LANGUAGES)
    for language in LANGUAGES.values():
        assert language.flores.partition("_")[2] == language.script


def test_every_language_is_in_a_cluster_and_every_cluster_shares_english_spanish_and_french():
    assert set(SHARED_LANGUAGES) == {"en", "es", "fr"}
    assert {code for codes in CLUSTERS.values() for code in codes} == set(CORE_LANGUAGES)
    assert all(set(SHARED_LANGUAGES) < set(codes) for codes in CLUSTERS.values())
    others = [code for codes in CLUSTERS.values() for code in codes if code not in SHARED_LANGUAGES]
    assert sorted(others) == sorted(set(CORE_LANGUAGES) - set(SHARED_LANGUAGES))


def test_direction_spacing_and_the_detectors_code():
    assert {code for code, language in LANGUAGES.items() if language.is_right_to_left} == {"ar", "fa", "he"}
    assert {code for code, language in LANGUAGES.items() if not language.is_spaced} == {"ja", "zh", "zh-Hant"}
    assert LANGUAGES["zh-Hant"].detector_code == LANGUAGES["zh"].detector_code == "zh"
