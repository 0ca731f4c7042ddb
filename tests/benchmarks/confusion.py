"""The confusion command beside the figures of the Language Confusion Benchmark's own script: `... FOLDER`.

FOLDER holds recorded outputs of models, outputs_MODEL.csv (model, completion, task, source, language), the script's
english_words.txt and its figures, reference.tsv (task, model, source, language, lpr, wpr in percent; "all" is a mean).
Prints, by model, the largest and the mean difference in points, with the script's words and with the bundled ones.
"""

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from flows.evaluation.confusion import measure_confusion


def main(folder: Path) -> None:
    reference = pl.read_csv(folder / "reference.tsv", separator="\t", null_values=["N/A"])
    for words in (folder / "english_words.txt", None):
        for path in sorted(folder.glob("outputs_*.csv")):
            own = measure(path, words)
            model = path.stem.removeprefix("outputs_")
            for rate in ("lpr", "wpr"):
                found = list(differences(reference.filter(pl.col("model") == model), own, rate))
                largest, mean = max(map(abs, found)), sum(found) / len(found)
                listed = "its words" if words else "bundled words"
                print(f"{model:20} {rate} {listed:14} {len(found):4} figures, largest {largest:.3f}, mean {mean:+.3f}")


def measure(path: Path, words: Path | None) -> dict[tuple[str, str], dict[str, float | None]]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        output = Path(folder) / "rates.json"
        measure_confusion(
            str(path), text="completion", language="language", groups=("task", "source"), words=words, output=output
        )
        written = json.loads(output.read_text(encoding="utf-8"))
    return {(row["group"], row["language"]): row for row in written["languages"] + written["average"]}


def differences(
    reference: pl.DataFrame, own: dict[tuple[str, str], dict[str, float | None]], rate: str
) -> Iterator[float]:
    for row in reference.to_dicts():
        found = own[f"{row['task']}/{row['source']}", row["language"]][rate]
        assert (found is None) == (row[rate] is None), (row, found)
        if found is not None:
            yield 100 * found - float(row[rate].removesuffix("%"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
