"""GPUs, by name and by lease: what one build holds, no other on the machine takes. The devices are pretended."""

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.doctor.machine_checks import check_gpus
from flows.lanes import gpus as gpus_module
from flows.lanes.gpus import find_gpus, lease
from flows.lanes.slots import SlotPool, find_slots
from schemas.errors import EngineError, FactoryError, HeldError
from schemas.recipe.models import Model
from tests.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[3]

HOLD = """
import sys
from flows.lanes.slots import SlotPool, find_slots
with SlotPool(find_slots(())).take(int(sys.argv[1])) as slot:
    print(*slot, flush=True)
    sys.stdin.readline()
"""


class Holder:
    """Another process that takes GPUs and keeps them until it is told or killed."""

    def __init__(self, visible: str, num_gpus: int = 1, *, umask: int = -1) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "TMPDIR")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(num_gpus)],
            cwd=ROOT,
            env=environment | {"CUDA_VISIBLE_DEVICES": visible, "TMPDIR": "/nowhere"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            umask=umask,
        )

    def slot(self) -> list[int]:
        """Wait until it holds its GPUs and return them, numbered among those that it sees."""
        assert self.process.stdout is not None
        return [int(number) for number in self.process.stdout.readline().split()]

    def says(self) -> str:
        """Return the next line of its standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().strip()

    def end(self) -> None:
        self.process.communicate("\n", timeout=GUARD_SECONDS)


@pytest.fixture
def gpus() -> list[str]:
    """Three GPUs that no other test knows."""
    return [f"GPU-{uuid.uuid4()}" for _ in range(3)]


@pytest.fixture
def hold() -> Iterator[Callable[..., Holder]]:
    holders: list[Holder] = []

    def start(*arguments: object, **options: object) -> Holder:
        holders.append(Holder(*arguments, **options))  # type: ignore[arg-type]
        return holders[-1]

    yield start
    for holder in holders:
        holder.process.kill()
        holder.process.communicate()


def test_two_builds_share_the_gpus_and_one_waits_for_the_other(
    gpus: list[str], hold: Callable[..., Holder], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hold(f"{gpus[0]},{gpus[1]}"), hold(f"{gpus[1]},{gpus[0]}", umask=0o077)
    assert {(gpus[0], gpus[1])[first.slot()[0]], (gpus[1], gpus[0])[second.slot()[0]]} == {gpus[0], gpus[1]}
    third = hold(f"{gpus[0]},{gpus[1]}")
    said = third.says()
    assert said.startswith("waiting for 1 of the slots' GPUs: GPU GPU-")
    assert f"process {first.process.pid} on " in said or f"process {second.process.pid} on " in said
    first.end()
    assert third.slot() == [0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus[2])
    with SlotPool(find_slots(())).take(1) as slot:
        assert slot == (0,)


def test_a_killed_build_gives_its_gpus_back(gpus: list[str], hold: Callable[..., Holder]) -> None:
    first = hold(",".join(gpus), 2)
    assert first.slot() == [0, 1]
    second = hold(",".join(gpus), 2)
    assert f"process {first.process.pid} on " in second.says()
    first.process.kill()
    assert second.slot() == [0, 1]


def test_who_needs_no_gpu_waits_for_none(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus[0])

    def refuse(line: str) -> None:
        raise AssertionError(line)

    with SlotPool(find_slots(())).take(1), SlotPool(find_slots(()), say=refuse).take(0) as slot:
        assert slot == ()


@pytest.mark.parametrize(("engine", "num_gpus"), [("vllm", 6), ("transformers", 6), ("openai", 0), ("recorded", 0)])
def test_only_models_that_run_here_need_gpus(engine: str, num_gpus: int) -> None:
    run = {"gpus": 3, "replicas": 2, "urls": ["http://127.0.0.1:1/v1"]}
    assert Model.model_validate({"model": "org/model", "engine": engine, "run": run}).num_gpus == num_gpus


def test_waiting_ends_when_the_user_stops(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus[0])
    stop, said = threading.Event(), []

    def say(line: str) -> None:
        said.append(line)
        stop.set()

    def check_stop() -> None:
        if stop.is_set():
            raise FactoryError("stopped")

    with SlotPool(find_slots(())).take(1):
        waiting = SlotPool(find_slots(()), say=say, check_stop=check_stop)
        with pytest.raises(FactoryError, match="stopped"), waiting.take(1):
            pass
    assert len(said) == 1
    assert f"process {os.getpid()} on {os.uname().nodename}" in said[0]
    stop.clear()
    with waiting.take(1) as slot:
        assert slot == (0,)


def test_a_lease_is_one_for_all_or_none(gpus: list[str]) -> None:
    with lease(gpus[:1]):
        with pytest.raises(HeldError, match=f"GPU {gpus[0]} is held by process {os.getpid()} on"), lease(gpus[::-1]):
            pass
        with lease(gpus[1:]):
            pass


def test_a_group_of_slots_passes_over_what_others_hold(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus))
    with lease(gpus[1:2]):
        with SlotPool(find_slots(())).take(2) as slot:
            assert slot == (0, 2)
        with SlotPool(((0, 1), (2,))).take(1) as slot:
            assert slot == (2,)


def test_gpus_have_the_same_name_however_they_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho '0, GPU-aa11, NVIDIA H100 80GB HBM3, 81559, 4'\n"
        "echo '1, GPU-bb22, NVIDIA GB10, [N/A], [N/A]'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for visible, found in {
        None: ("GPU-aa11", "GPU-bb22"),
        "1,0": ("GPU-bb22", "GPU-aa11"),
        "GPU-bb": ("GPU-bb22",),
        "MIG-x, 7": ("MIG-x", "7"),
        "0,-1,1": ("GPU-aa11",),
        "": (),
        "NoDevFiles": (),
    }.items():
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert find_gpus() == found
        assert len(find_slots(())) == len(found)


def test_a_tool_that_hangs_is_an_error_and_not_a_machine_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpus_module, "LIST_SECONDS", 0.1)
    with pytest.raises(EngineError, match=r"^nvidia-smi has not answered for 0 s; its driver may hang"):
        find_slots(())
    (finding,) = check_gpus()
    assert (finding.check, finding.state) == ("GPUs", "problem")
