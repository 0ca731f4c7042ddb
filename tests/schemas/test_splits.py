import duckdb
import pytest

from schemas.ids import content_id
from schemas.splits import SPLIT_SQL, choose_split

ROOTS = [content_id("prompt", number) for number in range(4000)]


def test_the_split_follows_the_percentage() -> None:
    share = sum(choose_split(root_id, 10) == "eval" for root_id in ROOTS) / len(ROOTS)
    assert share == pytest.approx(0.1, abs=0.02)
    assert {choose_split(root_id, 0) for root_id in ROOTS} == {"train"}
    assert {choose_split(root_id, 100) for root_id in ROOTS} == {"eval"}
    assert all(choose_split(root_id, 5) == "train" for root_id in ROOTS if choose_split(root_id, 10) == "train")


@pytest.mark.parametrize("eval_percent", [0, 5, 33.3, 100])
def test_the_macro_splits_alike(eval_percent: float) -> None:
    edge = [f"{max(0, int(16**13 * eval_percent / 100) + off):013x}" + "0" * 19 for off in (-2, -1, 0, 1)]
    roots = [root_id for root_id in ROOTS + edge if len(root_id) == 32]
    with duckdb.connect() as connection:
        connection.execute(SPLIT_SQL)
        sql = "SELECT list_transform(?, lambda root_id: choose_split(root_id, ?, 'neither'))"
        (found,) = connection.execute(sql, [roots, eval_percent]).fetchall()[0]
        others = connection.execute("SELECT choose_split('0ff', NULL, 'a'), choose_split('no id', 5, 'b')").fetchall()
    assert found == [choose_split(root_id, eval_percent) for root_id in roots]
    assert others == [("a", "b")]
