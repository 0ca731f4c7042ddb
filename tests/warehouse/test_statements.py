"""Values that are written into statements, and what is left alone."""

from datetime import UTC, datetime

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.statements import bind


def ask(sql, parameters):
    with duckdb.connect() as connection:
        return connection.execute(bind(sql, parameters)).fetchone()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was(text):
    assert ask("SELECT ?", [text]) == (text,)


@pytest.mark.parametrize("value", [None, True, False, 3, -2.5, ["a", "it's"], []])
def test_values_of_any_kind_are_written(value):
    assert ask("SELECT ?", [value]) == (value,)


def test_times_are_written_with_their_zone():
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert ask("SELECT ? = TIMESTAMPTZ '2026-01-02 03:04:05.678901+00'", [moment]) == (True,)


def test_what_stands_in_quotes_and_comments_is_left_alone():
    sql = "SELECT 'what? it''s $1' AS \"why?\", ? -- and what of $1?\n, $1"
    assert ask(sql, ["so"]) == ("what? it's $1", "so", "so")


def test_values_that_look_like_places_are_not_filled_in():
    assert ask("SELECT ?, ?", ["?", "$1"]) == ("?", "$1")
