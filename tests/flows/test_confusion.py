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


def test_the_command_prints_and_writes_the_rates(tmp_path):
    frame = pl.DataFrame(ROWS, schema=["lang", "task", "text"], orient="row").with_columns(
        reply=pl.struct("text"), text=None
    )
    frame.write_parquet(tmp_path / "replies.parquet")
    columns = ("--text-column", "reply.text", "--language-column", "lang", "--by", "task", "-o", "out/rates.json")
    command = [sys.executable, "-m", "flows.cli", "evaluate", "confusion", "replies.parquet", *columns]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rows left out: 1 unknown_language" in done.stdout
    written = json.loads((tmp_path / "out/rates.json").read_text())
    rates = {(row["group"], row["language"]): (row["lpr"], row["wpr"]) for row in written["languages"]}
    assert rates == {("mono", "ar"): (0.5, 1.0), ("cross", "ja"): (1.0, 1.0)}
    assert written["rejected"] == {"unknown_language": 1}
