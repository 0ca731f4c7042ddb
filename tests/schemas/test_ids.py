import hashlib
import json
from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.ids import CONTENT_ID_SQL, ID_LENGTH, content_id, file_digest, folder_digest

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
"""Every character that UTF-8 has a form for, control characters included."""

ITEMS = st.one_of(TEXT, st.integers(-(2**63), 2**63 - 1), st.none())

TRICKY = [
    "",
    "שלום עולם \u200f!",
    "مرحبا\u0640 بالعالم",
    "e\u0301 é \u1100\u1161\u11a8 각",
    "👩🏽‍🚀 🏳️‍🌈",
    "\x00\x01\x1f\x7f\x80\u2028\u2029\ufeff\uffff",
    '"\\" \\u0041 \\\\u001f \b\f\n\r\t /',
    "\U0010ffff",
]


@pytest.fixture(scope="module")
def query() -> Callable[[str, list[Any]], Any]:
    connection = duckdb.connect()
    connection.execute(CONTENT_ID_SQL)
    return lambda sql, values: connection.execute(f"SELECT {sql}", values).fetchone()


@pytest.fixture(scope="module")
def sql_id(query: Callable[[str, list[Any]], Any]) -> Callable[[str, Any], str]:
    return lambda kind, value: query("content_id(?, ?)", [kind, value])[0]


@settings(deadline=None, max_examples=200)
@given(TEXT, TEXT)
def test_a_string_has_one_id_in_python_and_in_sql(sql_id, kind, text):
    assert content_id(kind, text) == sql_id(kind, text)


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_strings_have_one_id_in_python_and_in_sql(sql_id, text):
    assert content_id("text", text) == sql_id("text", text)


@settings(deadline=None, max_examples=200)
@given(st.lists(TEXT | st.none(), min_size=1, max_size=5))
@example(TRICKY)
def test_a_list_of_strings_has_one_id_in_python_and_in_sql(sql_id, texts):
    assert content_id("list", texts) == sql_id("list", texts)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=1, max_size=5))
def test_a_list_of_integers_has_one_id_in_python_and_in_sql(sql_id, numbers):
    assert content_id("list", numbers) == sql_id("list", numbers)


@settings(deadline=None, max_examples=100)
@given(TEXT, TEXT, st.integers(0, 10**6))
def test_the_ids_of_completions_and_pairs_can_be_made_in_sql(query, settings_id, prompt_id, sample_index):
    sql = "content_id('completion', json_array(?, ?, ?::INT)), content_id('pair', [?, ?])"
    assert query(sql, [settings_id, prompt_id, sample_index, settings_id, prompt_id]) == (
        content_id("completion", [settings_id, prompt_id, sample_index]),
        content_id("pair", [settings_id, prompt_id]),
    )


@given(st.dictionaries(TEXT, st.recursive(ITEMS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)))
def test_the_order_of_keys_does_not_matter_and_the_kind_does(value):
    backwards = dict(reversed(value.items()))
    assert content_id("a", value) == content_id("a", backwards) != content_id("b", value)
    assert len(content_id("a", value)) == ID_LENGTH


@given(st.lists(ITEMS, max_size=4), st.lists(ITEMS, max_size=4))
def test_different_lists_have_different_ids(first, second):
    assert (content_id("list", first) == content_id("list", second)) == (first == second)


def test_an_id_is_what_it_is():
    canonical = json.dumps(["prompt", ["en", "héllo"]], separators=(",", ":"), ensure_ascii=False)
    assert content_id("prompt", ["en", "héllo"]) == hashlib.sha256(canonical.encode()).hexdigest()[:32]


def test_types_that_print_alike_have_different_ids():
    values: list[Any] = [1, "1", [1], [[1]], True, "true", None, "null", {}, [], ""]
    assert len({content_id("value", value) for value in values}) == len(values)


def test_texts_cannot_be_shifted_between_neighbours():
    assert content_id("pair", ["ab", "c"]) != content_id("pair", ["a", "bc"])
    assert content_id("pair", ['a","b']) != content_id("pair", ["a", "b"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], {"a": [float("nan")]}])
def test_numbers_without_a_json_form_are_refused(value):
    with pytest.raises(ValueError, match="a content id cannot be made of"):
        content_id("value", value)


@pytest.mark.parametrize("value", [b"bytes", object(), {1: "a"}, {"a", "b"}, ["a", b"b"], {"a": {"b": object()}}, 1j])
def test_what_json_has_no_form_for_is_refused_and_not_stringified(value):
    with pytest.raises(TypeError, match="content id"):
        content_id("value", value)


def test_a_folder_counts_by_names_and_bytes_and_not_by_place_or_hidden_files(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "inner").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "inner" / "weights").write_bytes(b"\x00\x01")
    (second / ".cache").mkdir()
    (second / ".cache" / "lock").write_text("x")
    assert folder_digest(first) == folder_digest(second)
    (second / "inner" / "weights").rename(second / "weights")
    assert folder_digest(first) != folder_digest(second)
    assert file_digest(second / "weights") == hashlib.sha256(b"\x00\x01").hexdigest()
