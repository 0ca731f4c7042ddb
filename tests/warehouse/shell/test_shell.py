import csv
import io
import json
import os
import re
import signal
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import polars as pl
import pytest

from schemas.errors import WarehouseError
from schemas.recipe.recipe import Recipe
from tests.http_server import serve
from tests.warehouse.small_build import ANSWERS, CONFIG_ID, QUESTIONS, answer_id, fill_lake, make_recipe
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake
from warehouse.shell.output import Form
from warehouse.shell.shell import open_for_reading, run_query, run_shell


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe, int]:
    """A folder with a lake, its recipe, and the snapshot before its pairs were deleted."""
    folder = tmp_path_factory.mktemp("shell")
    recipe = make_recipe(folder)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=4)
        snapshot = lake.snapshot()
        lake.delete("pairs", "true")
    return folder, recipe, snapshot


@pytest.fixture(scope="module")
def lake(built: tuple[Path, Recipe, int]) -> Iterator[Scope]:
    with open_for_reading(built[1].warehouse) as opened:
        yield opened


def run(lake: Scope, sql: str, form: Form = "table", max_rows: int = 200) -> str:
    out = io.StringIO()
    run_query(lake, sql, form, out, max_rows=max_rows)
    return out.getvalue()


def rows(lake: Scope, sql: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in run(lake, sql, "json").splitlines()]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM candidates;",
        "-- how many\nWITH a AS (SELECT * FROM candidates) SELECT count(*) FROM a; -- that many",
        "FROM candidates SELECT count(*)",
        "(SELECT count(*) FROM prompts) UNION ALL (SELECT 1 WHERE false)",
        "DESCRIBE candidates",
        "SHOW TABLES",
        "SUMMARIZE rewards",
        "VALUES (1), (2)",
        "PIVOT completions ON model USING count(*) GROUP BY language",
        "SELECT 'DELETE FROM prompts; COPY x TO y'",
        "EXPLAIN SELECT * FROM candidates",
        "EXPLAIN ANALYZE SELECT count(*) FROM prompts",
        "FROM ducklake_snapshots('lake')",
    ],
)
def test_what_reads_is_run(lake: Scope, sql: str) -> None:
    assert run(lake, sql).strip()


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("DELETE FROM prompts", "DELETE"),
        ("INSERT INTO prompts SELECT * FROM prompts", "INSERT"),
        ("WITH a AS (SELECT 1) INSERT INTO prompts SELECT * FROM prompts", "INSERT"),
        ("UPDATE prompts SET language = 'xx'", "UPDATE"),
        ("CREATE TABLE x AS SELECT 1", "CREATE"),
        ("DROP TABLE prompts", "DROP"),
        ("COPY prompts TO '/tmp/out.csv'", "COPY"),
        ("ATTACH ':memory:' AS x", "ATTACH"),
        ("INSTALL httpfs", "INSTALL"),
        ("LOAD httpfs", "LOAD"),
        ("SET threads = 1", "SET"),
        ("PRAGMA database_list", "PRAGMA"),
        ("CALL ducklake_merge_adjacent_files('lake')", "CALL"),
        ("EXPLAIN ANALYZE DELETE FROM prompts", "DELETE"),
        ("EXPLAIN /* really */ ANALYZE WITH a AS (SELECT 1) DELETE FROM prompts", "DELETE"),
        ("EXPORT DATABASE 'x'", "EXPORT"),
        ("SELECT * FROM ducklake_expire_snapshots('lake', versions => [1])", "ducklake_expire_snapshots"),
        ("SELECT * FROM \"postgres_execute\" /**/ ('lake', 'DROP TABLE x')", "postgres_execute"),
    ],
)
def test_what_writes_is_refused_in_one_sentence(lake: Scope, sql: str, named: str) -> None:
    with pytest.raises(WarehouseError, match=rf"^the SQL shell only reads: .*\b{named}\b.* is refused[^\n]*$"):
        run(lake, sql)


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "SELECT 1; DROP TABLE prompts", "PIVOT prompts ON split; SELECT 1"]
)
def test_several_statements_are_refused(lake: Scope, sql: str) -> None:
    with pytest.raises(WarehouseError, match="one statement at a time"):
        run(lake, sql)


@pytest.mark.parametrize("sql", ["", " ;", "-- nothing"])
def test_no_statement_is_refused(lake: Scope, sql: str) -> None:
    with pytest.raises(WarehouseError, match="no statement"):
        run(lake, sql)


def test_files_outside_the_lake_are_out_of_reach(lake: Scope, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("password\nhunter2\n")
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE secret AS SELECT 'hunter2' AS password")
    connection.close()
    for sql in (
        f"FROM '{secret}'",
        f"FROM read_text('{secret}')",
        f"SELECT * FROM glob('{tmp_path}/*')",
        f"FROM sqlite_scan('{other}', 'secret')",
        f"FROM (FROM read_csv('{secret}'))",
    ):
        with pytest.raises(WarehouseError) as caught:
            run(lake, sql)
        assert "hunter2" not in str(caught.value)


def test_the_network_is_out_of_reach(lake: Scope) -> None:
    asked = threading.Event()

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            self.send_error(404)

        def do_HEAD(self) -> None:
            self.do_GET()

    with serve(Server) as address, pytest.raises(WarehouseError):
        run(lake, f"FROM '{address}/x.csv'")
    assert not asked.is_set()


def test_settings_stay_locked_even_past_the_check(lake: Scope) -> None:
    for sql in ("SET enable_external_access = true", "SET lock_configuration = false", "RESET allowed_directories"):
        with pytest.raises(WarehouseError):
            lake.query(sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", r"^line 1, column 1: syntax error at or near \"SELEC\"$"),
        ("SELECT '日本',\n  nope FROM prompts", r"^line 2, column 3: Referenced column \"nope\" not found[^\n]*$"),
        ("SELECT '日本語', nope FROM prompts", r"^line 1, column 15: Referenced column \"nope\"[^\n]*$"),
        ("FROM nonesuch", r"^line 1, column 6: Table with name nonesuch does not exist[^\n]*$"),
        ("SELECT 'abc", r"^line 1, column 8: unterminated quoted string[^\n]*$"),
        ("SELECT text::INTEGER FROM completions", r"^(line 1, column 1?\d: )?[^\n]*Could not convert string[^\n]*$"),
        ("EXPLAIN SELECT nope", r"^line 1, column 16: Referenced column \"nope\"[^\n]*$"),
    ],
)
def test_bad_sql_is_one_line_with_its_place(lake: Scope, sql: str, message: str) -> None:
    for form in ("table", "json", "csv"):
        with pytest.raises(WarehouseError) as caught:
            run(lake, sql, form)
        assert re.match(message, str(caught.value)), str(caught.value)


def test_json_lines_are_unescaped_and_typed(lake: Scope) -> None:
    sql = "SELECT prompt_id, messages, language_score FROM prompts WHERE root_id = '0001-en' ORDER BY language"
    text = run(lake, sql, "json")
    assert QUESTIONS["ar"].format(n=1).splitlines()[0] in text
    assert [json.loads(line)["messages"] for line in text.split("\n")[:-1]] == [
        [{"role": "user", "content": QUESTIONS[language].format(n=1)}] for language in ("ar", "en", "hi", "ja")
    ]


def test_json_of_every_odd_type(lake: Scope) -> None:
    sql = (
        "SELECT 2::HUGEINT ** 100 AS a, 1::HUGEINT << 90 AS b, 'nan'::DOUBLE AS c, ['-inf'::DOUBLE, 1.5] AS d, "
        "INTERVAL 1 DAY AS e, MAP {'k': 1} AS f, DATE '2030-01-02' AS g, NULL AS h, 'NaN' AS i, true AS j, 1 AS a"
    )
    assert rows(lake, sql) == [
        {
            "a": 2.0**100,
            "b": 2**90,
            "c": None,
            "d": [None, 1.5],
            "e": "1 day",
            "f": {"k": 1},
            "g": "2030-01-02",
            "h": None,
            "i": "NaN",
            "j": True,
            "a_1": 1,
        }
    ]


def test_csv_reads_back(lake: Scope) -> None:
    text = run(lake, "SELECT completion_id, text, NULL AS nothing, [1, 2] AS list FROM completions ORDER BY ALL", "csv")
    back = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(back) == 44
    able = answer_id("0001-en", "able")
    found = {row["completion_id"]: row for row in back}[able]
    assert found == {
        "completion_id": able,
        "text": f"{ANSWERS['en'].format(n=1)} able",
        "nothing": "",
        "list": "[1,2]",
    }


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_an_empty_result_still_has_its_columns(lake: Scope, form: Form) -> None:
    text = run(lake, "SELECT prompt_id, messages FROM prompts WHERE false", form)
    assert ("prompt_id" in text) == (form != "json")


def test_parquet_to_a_file_and_to_a_stream(lake: Scope, tmp_path: Path) -> None:
    sql = "SELECT prompt_id, messages FROM prompts ORDER BY prompt_id"
    assert run_query(lake, sql, "parquet", tmp_path / "out.parquet") == 16
    stream = io.TextIOWrapper(io.BytesIO())
    assert run_query(lake, sql, "parquet", stream) == 16
    stream.buffer.seek(0)
    expected = lake.query(sql)
    for source in (tmp_path / "out.parquet", stream.buffer):
        assert pl.read_parquet(source).equals(expected)
    run_query(lake, f"SELECT * FROM ({sql}) WHERE false", "parquet", tmp_path / "empty.parquet")
    assert pl.read_parquet(tmp_path / "empty.parquet").schema == expected.schema


def test_parquet_is_kept_off_a_terminal(lake: Scope) -> None:
    with pytest.raises(WarehouseError, match="Parquet is binary"):
        run(lake, "SELECT 1", "parquet")
    with pytest.raises(WarehouseError, match=r"no place for wait \(INTERVAL\); cast it to VARCHAR"):
        run_query(lake, "SELECT INTERVAL 1 DAY AS wait", "parquet", io.TextIOWrapper(io.BytesIO()))


def test_a_failed_query_leaves_no_file(lake: Scope, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("before")
    with pytest.raises(WarehouseError):
        run_query(lake, "SELECT text::INTEGER FROM completions", "csv", tmp_path / "out.csv")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "before")]
    with pytest.raises(WarehouseError, match=r"nowhere/out\.csv cannot be written"):
        run_query(lake, "SELECT 1", "csv", tmp_path / "nowhere/out.csv")


def test_a_table_is_cut_and_says_so(lake: Scope) -> None:
    text = run(lake, "SELECT range AS number FROM range(1000)", max_rows=7)
    assert "│      6 │" in text
    assert "│      7 │" not in text
    assert "the first 7 rows" in text
    assert "the first" not in run(lake, "FROM range(7)", max_rows=7)


def test_a_table_keeps_its_borders_whatever_the_script(lake: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.cells import cell_len

    monkeypatch.setenv("COLUMNS", "60")
    text = run(
        lake, "SELECT language, messages[1].content AS content FROM prompts WHERE root_id = '0001-en' ORDER BY 1"
    )
    lines = text.splitlines()
    assert len({cell_len(line) for line in lines}) == 1
    arabic = next(line for line in lines if "الرقم" in line)
    assert re.search(r"│ \u2068.*\u2069 *│$", arabic)
    assert "番号1とは何ですか" in text


def test_a_table_shows_no_control_characters_and_no_markup(lake: Scope) -> None:
    text = run(lake, "SELECT '[red]a[/red] ' || chr(27) || '[31m' || chr(10) || chr(8238) || 'b' AS x, NULL AS y")
    assert "[red]a[/red] \\u001b[31m\\n\\u202eb" in text
    assert "NULL" in text
    assert "\x1b" not in text


def test_a_large_result_streams(lake: Scope, tmp_path: Path) -> None:
    sql = "SELECT range AS number, repeat('あ', 300) AS text FROM range(100000)"
    tracemalloc.start()
    assert run_query(lake, sql, "json", tmp_path / "out.jsonl") == 100_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "out.jsonl").stat().st_size > 90_000_000
    assert peak < 40_000_000


def test_time_travel(built: tuple[Path, Recipe, int], lake: Scope) -> None:
    _, recipe, snapshot = built
    assert rows(lake, "SELECT count(*) AS n FROM pairs") == [{"n": 0}]
    with open_for_reading(recipe.warehouse, as_of=snapshot) as past:
        assert rows(past, "SELECT count(*) AS n FROM pairs") == [{"n": 28}]
        with pytest.raises(WarehouseError):
            past.query("SELECT * FROM ducklake_expire_snapshots('lake', versions => [1])")


def test_an_unknown_build_is_said(built: tuple[Path, Recipe, int]) -> None:
    with (
        pytest.raises(WarehouseError, match="'nope'"),
        open_for_reading(built[1].warehouse, build="nope"),
    ):
        pass
    with open_for_reading(built[1].warehouse, build=CONFIG_ID) as lake:
        assert rows(lake, "SELECT count(*) AS n FROM candidates") == [{"n": 44}]


def typed(*lines: str | type[BaseException]) -> Callable[[str], str]:
    waiting = iter(lines)

    def read_line(prompt: str) -> str:
        line = next(waiting, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return read_line


def test_the_shell_goes_on_after_errors(lake: Scope) -> None:
    out = io.StringIO()
    lines = typed("SELECT", "  'a;", "b' AS x", ";", "SELEC 1;", "SELECT 1", KeyboardInterrupt, "SELECT 3 AS y;")
    run_shell(lake, "json", out, read_line=lines)
    assert out.getvalue().splitlines() == [
        'Type ".help" for help.',
        '{"x":"a;\\nb"}',
        'error: line 1, column 1: syntax error at or near "SELEC"',
        "",
        '{"y":3}',
        "",
    ]


def test_dot_commands(lake: Scope) -> None:
    out = io.StringIO()
    run_shell(
        lake,
        "table",
        out,
        read_line=typed(".help", ".tables", ".views", ".schema rewards", ".schema x", ".nope", ".quit", "SELECT 7;"),
    )
    text = out.getvalue()
    assert "completions        Answers: sampled from a model" in text
    assert "candidates         what routing and pairing choose from" in text
    assert "reward_fingerprint" in text
    assert "error: .schema needs a table or view: prompts," in text
    assert "error: there is no command .nope; .help names them" in text
    assert "7" not in text


def test_a_warehouse_on_servers_is_read_and_locked(postgres_url: str, s3_bucket: str, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, warehouse={"catalog": postgres_url, "data": f"{s3_bucket}/lake"})
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=2)
    with open_for_reading(recipe.warehouse) as lake:
        assert rows(lake, "SELECT count(*) AS n, sum(length(text)) > 0 AS b FROM candidates") == [{"n": 22, "b": True}]
        for sql in (f"FROM read_text('{s3_bucket}/lake-other/x')", "FROM read_text('/etc/hostname')"):
            with pytest.raises(WarehouseError, match="disabled by configuration"):
                run(lake, sql)


def test_ctrl_c_ends_a_query_and_not_the_shell(built: tuple[Path, Recipe, int]) -> None:
    """By a real signal, while DuckDB works, which makes a RuntimeError of it."""
    _, recipe, _ = built
    slow = "SELECT count(*) FROM range(100000000) AS a, range(100000000) AS b WHERE a.range + b.range = 1;"
    lines = iter([slow, ".quit"])
    with open_for_reading(recipe.warehouse) as lake:
        out = io.StringIO()
        timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))

        def read_line(_: str) -> str:
            line = next(lines)
            if line == slow:
                timer.start()
            return line

        run_shell(lake, "table", out, read_line=read_line)
    timer.join()
    assert out.getvalue().splitlines() == ['Type ".help" for help.', ""]
