"""The lake on a SQLite catalog: reading, writing, time travel."""

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import polars as pl
import pytest
from pydantic import ValidationError

from schemas import names
from schemas.errors import WarehouseError
from schemas.ids import content_id
from schemas.recipe.settings import WarehouseSettings
from schemas.tables import TABLES
from tests.warehouse.lake_rows import find_strays, make_completions, make_selections, warehouse_at
from warehouse.catalog.catalog import METADATA
from warehouse.catalog.locks import FileLocks
from warehouse.lake import compaction, cursors, migrations
from warehouse.lake.lake import Lake


@pytest.fixture
def settings(tmp_path: Path) -> WarehouseSettings:
    return warehouse_at(tmp_path)


def count(lake: Lake, table: str = "completions") -> int:
    return int(lake.query(f"SELECT count(*) FROM {table}").item())


def test_tables_are_those_of_the_schemas(settings: WarehouseSettings) -> None:
    assert tuple(TABLES) == names.TABLES
    with Lake.open(settings) as lake:
        for name, schema in TABLES.items():
            assert lake.query(f"FROM {name}").schema == schema.create_empty().schema, name


_LOOK = "SELECT count(row_id) FROM rejections WHERE config_id = 'c' AND stage = 'gate'"

_STATISTICS = f"""
SELECT s.* EXCLUDE table_id, c.* EXCLUDE table_id
FROM {METADATA}.ducklake_table_stats AS s JOIN {METADATA}.ducklake_table_column_stats AS c USING (table_id)
JOIN {METADATA}.ducklake_table USING (table_id)
WHERE table_name = 'completions' ORDER BY column_id
"""


def count_statements(lake: Lake, sql: str) -> int:
    """Return how many statements DuckDB runs for one, those of DuckLake to its catalog included."""
    lake.rows(sql)
    lake.rows("CALL enable_logging('QueryLog', storage = 'memory')")
    lake.rows(sql)
    lake.rows("CALL disable_logging()")
    return int(lake.value("SELECT count(*) FROM duckdb_logs WHERE type = 'QueryLog' AND message LIKE '%ducklake_%'"))


def test_an_empty_table_is_looked_at_in_few_statements(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        assert count_statements(lake, _LOOK) <= 3


def test_a_table_that_was_empty_gets_the_statistics_that_ducklake_gives_it(
    settings: WarehouseSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_completions(["a", "b"])
    with Lake.open(settings) as lake:
        lake.append("completions", rows)
        ours = lake.rows(_STATISTICS)
    monkeypatch.setattr("warehouse.lake.lake.note_empty_tables", lambda connection: None)
    with Lake.open(warehouse_at(tmp_path / "without")) as lake:
        lake.append("completions", rows)
        theirs = lake.rows(_STATISTICS)
    assert len(theirs) == rows.width
    assert ours == theirs


def test_a_lake_has_one_thread_until_it_has_work_for_more(
    settings: WarehouseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")  # from which DuckDB takes how many there may be
    monkeypatch.setattr(cursors, "_SMALL", 10_000)
    with Lake.open(settings) as lake:
        lake.append("completions", make_completions(["a"]))
        lake.compact()
        assert lake.value("SELECT current_setting('threads')") == 1
        lake.append("completions", make_completions(["b"], text="long " * 5_000))
        lake.append("completions", make_completions(["c"]))
        lake.compact()
        assert lake.value("SELECT current_setting('threads')") == 3
    monkeypatch.setattr(cursors, "_SMALL", 100)
    with Lake.open(settings, read_only=True) as lake:
        assert lake.value("SELECT current_setting('threads')") == 3


def test_append_writes_new_keys_only(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        assert lake.append("completions", make_completions(["a", "b"])) == 2
        assert lake.append("completions", make_completions(["b", "c", "c"], text="later")) == 1
        assert lake.append("completions", make_completions([])) == 0
        kept = lake.query("SELECT completion_id, text FROM completions ORDER BY ALL")
        assert kept.rows() == [("a", "مرحبا 世界 e\u0301"), ("b", "مرحبا 世界 e\u0301"), ("c", "later")]


def test_append_with_compound_and_null_keys(settings: WarehouseSettings) -> None:
    rewards = pl.DataFrame({"completion_id": ["a", "a"], "reward_fingerprint": ["r", "q"], "reward": [59.0, 1001.0]})
    with Lake.open(settings) as lake:
        assert lake.append("rewards", rewards) == 2
        assert lake.append("rewards", rewards.with_columns(reward_fingerprint=pl.lit("q"))) == 0
        with pytest.raises(WarehouseError, match=r"1 rows do not fit .*'completion_id'.*'nullability'"):
            lake.append("rewards", rewards.head(1).with_columns(completion_id=pl.lit(None)))
        many = pl.DataFrame({"completion_id": ["a"] * 20, "reward_fingerprint": [f"'{i}" for i in range(20)]})
        assert lake.append("rewards", many.with_columns(reward=pl.lit(0.5))) == 20
        assert lake.append("rewards", many.with_columns(reward=pl.lit(0.5))) == 0


def test_every_text_comes_back_as_it_was(settings: WarehouseSettings) -> None:
    texts = [
        "",
        "a\x00b",
        "\x00",
        "שלום \u202eعربي",
        "日本語",
        "e\u0301 \U0001f9d1\u200d\U0001f33e",
        'it\'s "quoted" \\ %',
        "\ufffe",
    ]
    ids = [f"{text}:{i}" for i, text in enumerate(texts)]
    frame = make_completions(ids).with_columns(text=pl.Series(texts))
    with Lake.open(settings) as lake:
        assert lake.append("completions", frame) == len(texts)
        assert lake.append("completions", frame) == 0
        kept = dict(lake.query("SELECT completion_id, text FROM completions").iter_rows())
        assert kept == dict(zip(ids, texts, strict=True))
        lake.compact(keep=timedelta(days=-1))
        assert dict(lake.query("SELECT completion_id, text FROM completions").iter_rows()) == kept


def test_nested_messages_come_back(settings: WarehouseSettings) -> None:
    messages = [{"role": "system", "content": "كن"}, {"role": "user", "content": "a\x00\n"}]
    prompt = dict.fromkeys(TABLES["prompts"].column_names()) | {
        "prompt_id": "p", "language": "ar", "messages": messages, "source": "s", "root_id": "p", "split": "train",
    }  # fmt: skip
    with Lake.open(settings) as lake:
        assert lake.append("prompts", pl.DataFrame([prompt])) == 1
        assert lake.query("SELECT messages FROM prompts").item().to_list() == messages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"round": pl.lit(1.5)}, r"column 'round' of the table 'completions' holds Int32.*Float64.*without loss"),
        ({"round": pl.lit(2**40)}, r"column 'round'.*Int64"),
        ({"origin": pl.lit("invented")}, r"column 'origin' breaks the rule 'regex'.*\('a',\)"),
        ({"text": pl.lit(None)}, r"column 'text' breaks the rule 'nullability'"),
        ({"repetition": pl.lit(float("nan"))}, r"column 'repetition' breaks the rule"),
        ({"extra": pl.lit(1)}, r"have the unknown extra; its columns are completion_id, "),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    settings: WarehouseSettings, change: dict[str, pl.Expr], message: str
) -> None:
    with Lake.open(settings) as lake:
        before = lake.snapshot()
        with pytest.raises(WarehouseError, match=message):
            lake.append("completions", make_completions(["a"]).with_columns(**change))
        with pytest.raises(WarehouseError, match="lack text"):
            lake.append("completions", make_completions(["a"]).drop("text"))
        assert lake.snapshot() == before


def test_types_change_where_no_value_does(settings: WarehouseSettings) -> None:
    frame = make_completions(["a"]).with_columns(round=pl.lit(3, pl.Int64), language=pl.lit("ar").cast(pl.Categorical))
    with Lake.open(settings) as lake:
        assert lake.append("completions", frame) == 1
        assert lake.query("SELECT round FROM completions").item() == 3


def test_times_are_utc_wherever_they_come_from(settings: WarehouseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=9)))
    row = {"run_id": "r", "config_id": "c", "name": "n", "recipe": "{}", "status": "running", "detail": None}
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    with Lake.open(settings) as lake:
        lake.append("builds", pl.DataFrame([row]).with_columns(recorded_at=pl.lit(moment)))
        assert lake.query("SELECT recorded_at FROM builds").item() == moment
        assert lake.query("FROM builds").schema["recorded_at"] == pl.Datetime("us", "UTC")
        assert next(lake.stream("FROM builds"))["recorded_at"].dtype == pl.Datetime("us", "UTC")
        assert lake.query("SELECT count(*) FROM builds WHERE recorded_at = ?", [moment.astimezone(UTC)]).item() == 1


def test_insert_select_makes_ids_and_keeps_keys(settings: WarehouseSettings) -> None:
    select = """SELECT 'best' AS router, 'c' AS config_id, prompt_id, content_id('x', [completion_id]) AS completion_id
                FROM completions"""
    with Lake.open(settings) as lake:
        lake.append("completions", make_completions(["a", "b"]).with_columns(prompt_id=pl.Series(["p", "q"])))
        assert lake.insert_select("selections", select) == 2
        assert lake.insert_select("selections", f"{select} UNION ALL {select}") == 0
        lake.append("completions", make_completions(["d", "e"]).with_columns(prompt_id=pl.lit("r")))
        assert lake.insert_select("selections", select) == 1
        made = lake.query("SELECT completion_id FROM selections WHERE prompt_id = 'p'").item()
        assert made == content_id("x", ["a"])
        with pytest.raises(WarehouseError, match=r"catalog\.sqlite: .*no_such_table"):
            lake.insert_select("selections", "SELECT * FROM no_such_table")


def test_a_failed_transaction_leaves_nothing(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:

        def change(cursor: object) -> None:
            cursor.execute("INSERT INTO selections VALUES ('c', 'p', 'x', 'r')")  # type: ignore[attr-defined]
            raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            lake.transact(change)
        assert count(lake, "selections") == 0
        assert lake.append("selections", make_selections(["p"])) == 1


def test_python_variables_are_no_tables(settings: WarehouseSettings) -> None:
    rows = make_selections(["p"])
    with Lake.open(settings) as lake, pytest.raises(WarehouseError, match="rows does not exist"):
        lake.query("FROM rows")
    assert rows.height == 1


def test_delete_and_time_travel_survive_compaction(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        empty = lake.snapshot()
        for part in range(6):
            lake.append("completions", make_completions([f"{part}-{i}" for i in range(10)]))
        full = lake.snapshot()
        assert lake.delete("completions", "completion_id LIKE ?", ["%-1"]) == 6
        assert lake.delete("completions", "completion_id LIKE '0-%'") == 9
        less = lake.snapshot()
        lake.append("completions", make_completions(["late"]))
        lake.compact(keep=timedelta(days=-1))
        assert lake.query("FROM ducklake_list_files('lake', 'completions')").height <= 2
        assert find_strays(lake) == []
        assert [count(lake, f"completions AT (VERSION => {at})") for at in (empty, full, less)] == [0, 60, 45]
        assert count(lake) == 46
    for at, rows in ((empty, 0), (full, 60), (less, 45)):
        with Lake.open(settings, as_of=at) as past:
            assert past.snapshot() == at
            assert count(past) == rows
            with pytest.raises(WarehouseError, match="reading only"):
                past.append("completions", make_completions(["z"]))
    with pytest.raises(WarehouseError, match="has no snapshot 999"):
        Lake.open(settings, as_of=999)
    with pytest.raises(WarehouseError, match="no tables yet at that snapshot"):
        Lake.open(settings, as_of=0)


def test_compaction_merges_files_and_removes_them_when_no_reader_needs_them(settings: WarehouseSettings) -> None:
    def files() -> set[Path]:
        return set(Path(settings.data).rglob("*.parquet")) - others

    with Lake.open(settings) as lake:
        others = set(Path(settings.data).rglob("*.parquet"))
        for part in range(6):
            lake.append("completions", make_completions([f"{part}-{i}" for i in range(10)]))
        small = files()
        assert len(small) == 6
        lake.compact(keep=timedelta(hours=1))
        assert small < files()
        lake.compact(keep=timedelta(days=-1))
        assert len(files()) == 1
        assert not files() & small
        assert count(lake) == 60


def test_memory_is_what_the_settings_say(settings: WarehouseSettings) -> None:
    with Lake.open(settings.model_copy(update={"memory": "512MiB"})) as lake:
        assert lake.query("SELECT current_setting('memory_limit')").item() == "512.0 MiB"
    with pytest.raises(ValidationError, match="memory"):
        WarehouseSettings(memory="much")


def test_a_compaction_takes_no_threads_from_others_for_good(
    settings: WarehouseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works with one, and meanwhile another lane's rows make the lake one that is worth several."""
    num_threads = "SELECT current_setting('threads')"
    with Lake.open(settings) as lake:
        found = compaction._find_tables
        during = []

        def find_tables(cursor: duckdb.DuckDBPyConnection, files: str, *, at_least: int) -> list[str]:
            lake._cursors.fit_threads(2**40)
            during.append(cursor.execute(num_threads).fetchall()[0][0])
            return found(cursor, files, at_least=at_least)

        monkeypatch.setattr(compaction, "_find_tables", find_tables)
        lake.compact()
        assert during == [1, 1]
        assert lake.value(num_threads) == duckdb.execute(num_threads).fetchall()[0][0]


def test_compaction_leaves_files_alone_while_somebody_reads(settings: WarehouseSettings) -> None:
    def num_files(lake: Lake) -> int:
        return lake.query("FROM ducklake_list_files('lake', 'completions')").height

    with Lake.open(settings) as lake, Lake.open(settings, read_only=True) as reader:
        for part in range(4):
            lake.append("completions", make_completions([f"{part}-{i}" for i in range(10)]))
        stream = reader.stream("FROM completions", batch_rows=10)
        first = next(stream)
        lake.compact()
        assert num_files(lake) == 4
        assert first.height + sum(frame.height for frame in stream) == 40
        lake.compact()
        assert num_files(lake) == 1


def test_a_compaction_waits_for_readers_and_new_readers_for_it(settings: WarehouseSettings) -> None:
    locks = FileLocks(Path(settings.catalog))
    events: list[str] = []

    def read() -> None:
        with locks.reading():
            events.append("read")

    def rewrite() -> None:
        with locks.rewriting(patience=60) as is_alone:
            late.start()
            late.join(0.3)
            events.append(f"rewritten {is_alone}")

    late, rewriter = threading.Thread(target=read), threading.Thread(target=rewrite)
    with locks.reading():
        rewriter.start()
        rewriter.join(0.3)
        events.append("done")
    rewriter.join()
    late.join()
    assert events == ["done", "rewritten True", "read"]


def test_stream_sees_one_snapshot_while_the_lake_is_written(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        lake.append("completions", make_completions([str(i) for i in range(30_000)]))
        stream = lake.stream("SELECT completion_id FROM completions", batch_rows=1000)
        seen = next(stream).height
        writers = [
            threading.Thread(
                target=lake.append, args=("completions", make_completions([f"{name}{i}" for i in range(9)]))
            )
            for name in "abcd"
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        frames = list(stream)
        assert max(frame.height for frame in frames) <= 1000
        assert seen + sum(frame.height for frame in frames) == 30_000
        assert count(lake) == 30_036


@pytest.mark.parametrize("read_first", [False, True])
def test_migration_brings_an_older_warehouse_up_to_date(
    settings: WarehouseSettings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], read_first: bool
) -> None:
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["p"]))
        old = lake.snapshot()
    known, version = migrations.MIGRATIONS, migrations.schema_version()
    another = "ALTER TABLE selections ADD COLUMN note VARCHAR DEFAULT 'none'"
    monkeypatch.setattr(migrations, "MIGRATIONS", (*known, (another,)))
    with Lake.open(settings, read_only=read_first) as lake:
        assert lake.query("SELECT prompt_id, note FROM selections").rows() == [("p", "none")]
        migrated = lake.snapshot()
    said = f"has schema version {version}, and this factory reads {version + 1}: bringing it up to date\n"
    assert (said in capfd.readouterr().err) == read_first
    with Lake.open(settings, read_only=True) as lake:
        assert lake.snapshot() == migrated
    with Lake.open(settings, as_of=old) as past:
        assert past.query("FROM selections").columns == ["config_id", "prompt_id", "completion_id", "router"]
    monkeypatch.setattr(migrations, "MIGRATIONS", known)
    message = f"has schema version {version + 1}, and this factory knows versions up to {version}"
    for read_only in (False, True):
        with pytest.raises(WarehouseError, match=message):
            Lake.open(settings, read_only=read_only)


def test_the_first_warehouses_become_those_of_today(settings: WarehouseSettings) -> None:
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() WHERE database_name = 'lake'"
    )
    with Lake.open(settings) as lake:
        today = sorted(lake.query(columns).rows())
    with Lake.open(settings) as lake:
        lake.transact(lambda cursor: cursor.execute("DROP TABLE reads"))
        for table in ("prompts", "completions"):
            lake.transact(lambda cursor, table=table: cursor.execute(f"ALTER TABLE {table} DROP COLUMN script_share"))
        lake.transact(lambda cursor: cursor.execute("DROP TABLE source_rows"))
        lake.transact(lambda cursor: cursor.execute("ALTER TABLE usage DROP COLUMN num_rows"))
        lake.transact(lambda cursor: cursor.execute("DROP TABLE reward_index"))
        lake.transact(lambda cursor: cursor.execute("DELETE FROM schema_version"))
        lake.transact(lambda cursor: cursor.execute("INSERT INTO schema_version VALUES (1)"))
    with Lake.open(settings) as lake:
        assert sorted(lake.query(columns).rows()) == today
        assert lake.query("SELECT max(version) FROM schema_version").item() == migrations.schema_version()


def test_failed_migration_changes_nothing(settings: WarehouseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lake.open(settings) as lake:
        before = lake.snapshot()
    broken = ("ALTER TABLE selections ADD COLUMN note VARCHAR", "ALTER TABLE nothing ADD COLUMN note VARCHAR")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))
        with pytest.raises(WarehouseError, match="nothing"):
            Lake.open(settings)
    with Lake.open(settings) as lake:
        assert lake.snapshot() == before
        assert "note" not in lake.query("FROM selections").columns
