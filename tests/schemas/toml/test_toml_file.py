"""Each mistake is one sentence: file, line, key, what is allowed and what was given."""

import re
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import RecipeError
from schemas.recipe.merging import MergeSettings
from schemas.recipe.recipe import load_recipe
from schemas.toml.toml_file import find_line, load_table
from tests.schemas.small_recipe import PROMPTS

SMALL = (
    PROMPTS
    + """[[teachers]]
name = "a"
model = "./models/a"
[[teachers]]
name = "b"
model = "org/b"
[teachers.sampling]
max_tokens = 64
[[reward_models]]
name = "r"
model = "~/r"
[[pairs]]
strategy = "best_vs_worst"
[warehouse]
catalog = "lake/catalog.sqlite"
"""
)


def refuse(tmp_path: Path, *changes: tuple[str, str], text: str = SMALL) -> list[str]:
    """Return the sentences about the small recipe with parts of its text replaced, without the file's name."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is not in the recipe once"
        text = text.replace(old, new)
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_paths_are_meant_from_the_recipes_folder(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(SMALL, encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.prompts[0].path == str(tmp_path / "p.jsonl")
    assert recipe.teachers[0].model == str(tmp_path / "models" / "a")
    assert recipe.teachers[1].model == "org/b"
    assert recipe.reward_models[0].model == str(Path.home() / "r")
    assert recipe.warehouse.catalog == "lake/catalog.sqlite"


def test_a_dataset_is_a_folder_beside_the_recipe_or_a_hub_id(tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "recipe.toml"
    for given, meant in (("./data", "data"), ("data", "data"), ("org/name", None)):
        path.write_text(SMALL.replace('path = "p.jsonl"', f'dataset = "{given}"'), encoding="utf-8")
        recipe = load_recipe(path)
        assert recipe.prompts[0].dataset == (str(tmp_path / meant) if meant else given)
        sources: Any = recipe.identity()["prompts"]
        assert sources[0]["dataset"] == (meant or given)


@pytest.mark.parametrize(
    ("old", "new", "line", "sentence"),
    [
        ('name = "b"', 'nme = "b"', 11, "teachers.1.name: is missing"),
        (
            "max_tokens = 64",
            "max_token = 64",
            15,
            "teachers.1.sampling.max_token: there is no such key (did you mean 'max_tokens'?); allowed are temperature, "
            "top_p, top_k, min_p, repetition_penalty, max_tokens, stop, seed",
        ),
        (
            "max_tokens = 64",
            "max_tokens = 0",
            15,
            "teachers.1.sampling.max_tokens: Input should be greater than 0 (given: 0)",
        ),
        (
            "max_tokens = 64",
            'max_tokens = "many"',
            15,
            "teachers.1.sampling.max_tokens: Input should be a valid integer, unable to parse string as an integer "
            "(given: 'many')",
        ),
        ("[teachers.sampling]\nmax_tokens = 64", "sampling = 3", 14, "teachers.1.sampling: Input should be "),
        ('["en", "he"]', '["en",\n "xx"]', 2, "languages: unknown language 'xx'; allowed are ar, cs, "),
        ('["en", "he"]', '["en", "en"]', 2, "languages: language 'en' is named twice (given: ['en', 'en'])"),
        ('["en", "he"]', "[]", 2, "languages: List should have at least 1 item after validation, not 0 (given: [])"),
        ('["en", "he"]', '"en"', 2, "languages: Input should be a list (given: 'en')"),
        ('name = "small"', 'name = "a b"', 1, "name: String should match pattern"),
        (
            'language = "en"',
            'language = "english"',
            6,
            "prompts.0.language: unknown language 'english' (did you mean 'en'?); allowed",
        ),
        ('language = "en"\n', "", 3, "prompts.0: exactly one of 'language' (one for all rows) and 'columns.language'"),
        ('path = "p.jsonl"', 'path = "p"\ndataset = "d"', 3, "prompts.0: exactly one of 'path' (a file) and 'dataset'"),
        (
            '"q" }',
            '"q", messages = "m" }',
            7,
            "prompts.0.columns: at most one of 'prompt' (single-turn text) and 'mess",
        ),
        ('name = "b"', 'name = "a"', 12, "teachers.1.name: teacher 'a' is named twice; names must differ"),
        (
            '"best_vs_worst"',
            '"strong_vs_weak"',
            19,
            "pairs.0: strategy = 'strong_vs_weak' and the teachers 'strong' and 'weak' go together",
        ),
        (
            '"best_vs_worst"',
            '"strong_vs_weak"\nstrong = "a"\nweak = "c"',
            22,
            "pairs.0.weak: unknown teacher 'c'; the pool has a, b",
        ),
        ('"best_vs_worst"', '"sql"', 19, "pairs.0: strategy = 'sql' and a path in 'sql' go together"),
        ('"best_vs_worst"', '"best"', 20, "pairs.0.strategy: Input should be 'best_vs_worst', "),
        (
            "[warehouse]",
            '[rewards]\ncombine = "mean_rnak"\n[warehouse]',
            22,
            "rewards.combine: Input should be 'mean_rank' or 'mean_zscore' (given: 'mean_rnak') (did you mean 'mean_rank'?)",
        ),
        (
            '["en", "he"]',
            '["en", "pt-BR"]',
            2,
            "languages: unknown language 'pt-BR' (did you mean 'pt'?); allowed are ar, ",
        ),
        (
            '["en", "he"]',
            '["en", "Hebrw"]',
            2,
            "languages: unknown language 'Hebrw' (did you mean 'he'?); allowed are ar, ",
        ),
        (
            'name = "b"\nmodel = "org/b"',
            'name = "Beta-large"\nmodel = "org/b"\n[translation]\nmodel = "org/t"\ncompletions_of = ["beta-lage"]\n[[teachers]]'
            '\nname = "c"\nmodel = "org/c"',
            16,
            "translation.completions_of: unknown teacher 'beta-lage' (did you mean 'Beta-large'?); the pool has a, Beta-large",
        ),
        ('model = "org/b"', 'engine = "openai"\nmodel = "b"', 11, "teachers.1: the openai engine needs 'run.urls'"),
        ('model = "org/b"', 'engine = "recorded"', 11, "teachers.1: a [teachers.recorded] section and engine ="),
        ('model = "org/b"', "", 11, "teachers.1: 'model' is needed: a hub id or a local folder"),
        (
            '"org/b"',
            '"org/b"\nrun = { gpus = 0 }',
            14,
            "teachers.1.run.gpus: Input should be greater than 0 (given: 0)",
        ),
        ('"org/b"', '"org/b"\nrun.replicas = 1\nrun.gpus = 0', 15, "teachers.1.run.gpus: Input should be greater"),
        ("[[pairs]]", '[routing]\nmethod = "fixed"\n[[pairs]]', 19, "routing: method = 'fixed' and a table 'teachers'"),
        (
            "[[pairs]]",
            '[routing]\nmethod = "fixed"\n[routing.teachers]\nen = "c"\n[[pairs]]',
            22,
            "routing.teachers.en: unknown teacher 'c'; the pool has a, b",
        ),
        (
            "[warehouse]",
            "[warehose]",
            21,
            "warehose: there is no such key (did you mean 'warehouse'?); allowed are name, ",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line_and_key(tmp_path, old, new, line, sentence):
    found = refuse(tmp_path, (old, new))
    assert any(text.startswith(f"{line}: {sentence}") for text in found), found
    assert len(found) == (2 if "nme" in new else 1)


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(tmp_path):
    found = refuse(tmp_path, ('["en", "he"]', '["qq"]'), ("max_tokens = 64", "max_tokens = -1"), ('"r"', "7"))
    assert [int(re.match(r"\d+", line)[0]) for line in found] == [2, 15, 17]


def test_missing_sections_are_named(tmp_path):
    found = refuse(tmp_path, text='name = "x"\n')
    assert found == [f"1: {section}: is missing" for section in ("prompts", "reward_models", "teachers")]


def test_mistakes_in_a_list_are_not_followed_by_a_complaint_about_its_length(tmp_path):
    found = refuse(tmp_path, ('model = "./models/a"', "samples = 0"), ('model = "org/b"', "samples = 0"))
    assert all("at least 1 item" not in line for line in found), found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"lake/catalog.sqlite"', '"postgres://factory:geheim@host/lake"'),
        ('"lake/catalog.sqlite"', '"c.sqlite"\ndata = "s3://key:geheim@bucket"'),
        ('"lake/catalog.sqlite"', '"c.sqlite"\npassword = "geheim"'),
        ('model = "org/b"', 'model = "b"\nrun = { api_key = "geheim" }'),
        ('model = "org/b"', 'model = "b"\nrun = { api_key_env = "sk-geheim" }'),
        ('model = "org/b"', 'model = "b"\nrun = { urls = ["https://me:geheim@host/v1"] }'),
    ],
)
def test_a_secret_is_refused_and_not_repeated(tmp_path, old, new):
    found = refuse(tmp_path, (old, new))
    assert len(found) == 1
    assert "geheim" not in found[0]


def test_a_long_value_is_shortened(tmp_path):
    (found,) = refuse(tmp_path, ('"small"', f'"{"x y " * 500}"'))
    assert len(found) < 250
    assert "'x y x y" in found


def test_a_file_that_is_no_recipe(tmp_path):
    assert refuse(tmp_path, text="name = \n")[0].endswith("is not TOML: Invalid value (at line 1, column 8)")
    with pytest.raises(RecipeError, match=r"there is no recipe .*nowhere\.toml; `factory init .*` writes one"):
        load_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    said = r"latin\.toml cannot be read: it is not UTF-8; save it as UTF-8, as `iconv -f CP1252 -t UTF-8` does"
    with pytest.raises(RecipeError, match=said):
        load_recipe(tmp_path / "latin.toml")
    (tmp_path / "wide.toml").write_text(SMALL, encoding="utf-16")
    with pytest.raises(RecipeError, match=r"wide\.toml cannot be read: .* `iconv -f UTF-16 -t UTF-8` does"):
        load_recipe(tmp_path / "wide.toml")


def test_the_mark_that_editors_write_before_utf_8_is_no_part_of_a_recipe(tmp_path):
    (tmp_path / "plain.toml").write_text(SMALL, encoding="utf-8")
    (tmp_path / "marked.toml").write_text(SMALL, encoding="utf-8-sig")
    assert load_recipe(tmp_path / "marked.toml") == load_recipe(tmp_path / "plain.toml")
    (tmp_path / "marked.toml").write_text(SMALL.replace("small", "sm/all"), encoding="utf-8-sig")
    with pytest.raises(RecipeError, match=r"marked\.toml:1: "):
        load_recipe(tmp_path / "marked.toml")


def test_a_file_of_other_settings_is_not_called_a_recipe(tmp_path):
    def refuse_table(path):
        with pytest.raises(RecipeError) as refused:
            load_table(path, "merge", MergeSettings)
        return str(refused.value)

    path = tmp_path / "merge.toml"
    assert refuse_table(path) == f"there is no file {path}; a TOML file with a table [merge] is needed"
    path.write_text("name = ")
    assert refuse_table(path).startswith(f"{path} is not TOML: ")
    assert refuse_table(tmp_path).startswith(f"{tmp_path} cannot be read: ")


LAYOUT = '''\
"na\\u006de" = "x"
slots = [
    [0, 1],
    [2, 3],
]
text = """
[[teachers]]
name = "not this"
"""
inline = [{ a = 1 }, { a = 2 }]
[[ "teachers" ]]  # the first
run . gpus = 1
[teachers.recorded]
columns = { text = "t" }

[[teachers]]
run.gpus = 1
run.replicas = 1

[teachers.recorded.columns]
text = "t"
'''


@pytest.mark.parametrize(
    ("location", "line"),
    [
        ((), 1),
        (("nowhere",), 1),
        (("name",), 1),
        (("slots", 1, 0), 2),
        (("inline", 1, "a"), 10),
        (("teachers",), 11),
        (("teachers", 0, "model"), 11),
        (("teachers", 0, "run", "gpus"), 12),
        (("teachers", 0, "recorded"), 13),
        (("teachers", 0, "recorded", "columns", "text"), 14),
        (("teachers", 1), 16),
        (("teachers", 1, "run", "replicas"), 18),
        (("teachers", 1, "recorded", "columns", "text"), 21),
        (("teachers", 2), 11),
    ],
)
def test_the_line_of_a_value_is_found_in_any_layout(location, line):
    assert find_line(LAYOUT, location) == line
