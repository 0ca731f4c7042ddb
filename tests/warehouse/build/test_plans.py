"""How statements are planned while other threads plan theirs."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.waiting import GUARD_SECONDS
from tests.warehouse.lake_rows import make_completions, make_selections, warehouse_at
from warehouse.lake.lake import Lake

AS_WRITTEN = """
EXPLAIN SELECT c.text FROM selections AS s JOIN completions AS c ON c.completion_id = s.prompt_id WHERE {condition}
"""


def tables(plan: str) -> list[str]:
    """Return the tables of a plan from left to right: the right one is held in memory."""
    return [name for name in plan.replace("│", " ").split() if name in ("completions", "selections")]


def test_a_plan_keeps_its_bound_while_another_thread_ends_planning(tmp_path: Path) -> None:
    """Both threads meet in the middle of planning, and one goes on when the other has taken its setting back."""
    both_plan, first_is_done = threading.Barrier(2, timeout=GUARD_SECONDS), threading.Event()

    def plan_first() -> bool:
        both_plan.wait()
        return True

    def plan_second() -> bool:
        both_plan.wait()
        assert first_is_done.wait(GUARD_SECONDS)
        return True

    with Lake.open(warehouse_at(tmp_path)) as lake:
        lake.append("completions", make_completions([f"{number}" for number in range(5000)]))
        lake.append("selections", make_selections(["1", "2"]))

        def explain(hook: str, done: Callable[[], object], *, joined_as_written: bool) -> list[str]:
            condition = f"{hook}()" if hook else "true"
            frames = lake.stream(AS_WRITTEN.format(condition=condition), joined_as_written=joined_as_written)
            (frame,) = list(frames)
            done()
            return tables(frame["explain_value"].item())

        for hook in (plan_first, plan_second):  # a function of constants is run by the planner, before it orders joins
            lake.transact(lambda cursor, hook=hook: cursor.create_function(hook.__name__, hook, [], "BOOLEAN"))
        assert explain("", bool, joined_as_written=False) == ["completions", "selections"]
        assert explain("", bool, joined_as_written=True) == ["selections", "completions"]
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(explain, "plan_first", first_is_done.set, joined_as_written=True)
            second = pool.submit(explain, "plan_second", bool, joined_as_written=True)
            assert first.result(120) == ["selections", "completions"]
            assert second.result(120) == ["selections", "completions"]
        assert explain("", bool, joined_as_written=False) == ["completions", "selections"]
