"""The confusion command on the command line."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

ROWS = [
    ("ar", "mono", "الطقس جميل اليوم وسنذهب إلى الحديقة بعد الظهر"),
    ("ar", "mono", "The weather is beautiful today and we will go to the garden."),
    ("ja", "cross", "今日は天気がいいので、午後は庭に行きます。"),
    ("xx", "cross", "?"),
]


def run_command(folder, *arguments):
    command = [sys.executable, "-m", "flows.cli", "evaluate", "confusion", *arguments]
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_command_prints_and_writes_the_rates(tmp_path):
    frame = pl.DataFrame(ROWS, schema=["lang", "task", "text"], orient="row").with_columns(
        reply=pl.struct("text"), text=None
    )
    frame.write_parquet(tmp_path / "replies.parquet")
    columns = ("--text-column", "reply.text", "--language-column", "lang", "--by", "task", "-o", "out/rates.json")
    done = run_command(tmp_path, "replies.parquet", *columns)
    assert done.returncode == 0, done.stderr
    assert "rows left out: 1 unknown_language" in done.stdout
    written = json.loads((tmp_path / "out/rates.json").read_text())
    rates = {(row["group"], row["language"]): (row["lpr"], row["wpr"]) for row in written["languages"]}
    assert rates == {("mono", "ar"): (0.5, 1.0), ("cross", "ja"): (1.0, 1.0)}
    assert written["rejected"] == {"unknown_language": 1}


def test_groups_of_several_columns_and_words_of_ones_own(tmp_path):
    arabic = ROWS[0][2]
    rows = [
        ("ar", "mono", "s", arabic),
        ("ar", "mono", "t", f"{arabic} weather"),
        ("fr", "mono", "t", "Ja, das ist nun einmal so."),
    ]
    pl.DataFrame(rows, schema=["language", "task", "source", "completion"], orient="row").write_csv(tmp_path / "r.csv")
    (tmp_path / "words.txt").write_text("Weather\nrain\n")
    by = ("--by", "task", "--by", "source", "-o", "rates.json")
    for words, own_words in ((), 0.0), (("--words", "words.txt"), 1.0):
        done = run_command(tmp_path, "r.csv", *by, *words)
        assert done.returncode == 0, done.stderr
        written = json.loads((tmp_path / "rates.json").read_text())
        rates, means = (
            {(row["group"], row["language"]): (row["lpr"], row["wpr"]) for row in written[name]}
            for name in ("languages", "average")
        )
        assert rates == {
            ("mono/s", "ar"): (1.0, 1.0),
            ("mono/t", "ar"): (1.0, own_words),
            ("mono/t", "fr"): (0.0, None),
        }
        assert means["mono/all", "ar"] == (1.0, (1 + own_words) / 2)
        assert means["mono/all", "all"] == (0.5, (1 + own_words) / 2)
    done = run_command(tmp_path, "r.csv", "--words", "no.txt")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no.txt" in done.stderr


def test_a_column_without_responses_is_refused(tmp_path):
    rows = [("ar", "model-a", ROWS[0][2]), ("ja", "model-a", ROWS[2][2])]
    pl.DataFrame(rows, schema=["language", "model", "completion"], orient="row").write_csv(tmp_path / "r.csv")
    done = run_command(tmp_path, "r.csv", "--text-column", "model", "-o", "rates.json")
    assert done.returncode != 0
    assert "r.csv: no response in 'model' has a line of 5 words" in done.stderr
    assert not (tmp_path / "rates.json").exists()
