"""The figures of the house: ``python -m tests.benchmarks.house [CHECKOUT]``, for this checkout or another one.

Prints, for the four packages: the number of files, the median and 90th percentile of the lines of files and of
functions, the files that import in a circle (lazily or not, by grimp), the longest parameter list and whose it is (of
functions; and of commands, where every parameter is an option of the command line),
``Any`` in signatures (and in aliases, behind which it could hide), ``type: ignore`` comments, and which heavy packages
the parent process of a build has imported in the end. The build is a whole one, from recorded answers and a reward
model on a server, by the ``factory`` command, so that versions can be compared whatever their modules are called.
"""

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PACKAGES = ("schemas", "warehouse", "factory", "flows")

HEAVY = ("torch", "vllm", "transformers", "datasets", "prefect", "pandas", "pyarrow", "matplotlib")

RECIPE = """
name = "house"
languages = ["en"]
prompts = [{{ name = "p", path = "prompts.jsonl", language = "en", columns = {{ prompt = "q", id = "id" }} }}]
prompt_gates = {{ language = false, near_duplicate_similarity = 0 }}
gates = {{ language = false, min_chars = 0 }}
teachers = [
    {{ name = "one", engine = "recorded", recorded = {{ path = "one.jsonl", columns = {{ text = "a", key = "id" }} }} }},
    {{ name = "two", engine = "recorded", recorded = {{ path = "two.jsonl", columns = {{ text = "a", key = "id" }} }} }},
]
reward_models = [{{ name = "judge", engine = "openai", model = "judge", run = {{ urls = ["{url}"] }} }}]
"""

COMMAND = f"""
import sys
from flows.cli import main
sys.argv = ["factory", "run", "recipe.toml"]
main()
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
"""

CIRCLES = f"""
import grimp
graph = grimp.build_graph(*{PACKAGES!r}, cache_dir=None)
above = {{name: graph.find_upstream_modules(name) for name in graph.modules}}
circles = {{frozenset([name, *(other for other in above[name] if name in above[other])]) for name in above}}
print(*[" ".join(sorted(circle)) for circle in circles if len(circle) > 1], sep="\\n")
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Judge(BaseHTTPRequestHandler):
    """Gives every conversation its length as the reward, by vLLM's own API."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        is_probe = json.loads(asked)["use_activation"] == "?"  # which a server refuses if it knows the option
        scored = {"data": [{"probs": [float(len(asked))]}], "usage": {"prompt_tokens": 1}}
        body = json.dumps({"error": "use_activation: not a boolean"} if is_probe else scored).encode()
        self.send_response(400 if is_probe else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: what is printed are figures."""


def list_functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def list_parameters(function: Function) -> list[ast.arg]:
    """Return all that can be given to a function but self and cls."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    given = [argument for argument in (*named, arguments.vararg, arguments.kwarg) if argument is not None]
    return given[1:] if given and given[0].arg in {"self", "cls"} else given


def is_command(function: Function) -> bool:
    """Whether typer makes a command of a function."""
    return any(re.match(r"\w+\.(command|callback)\(", ast.unparse(decorator)) for decorator in function.decorator_list)


def count_any(annotation: ast.expr | None) -> int:
    """Count how often an annotation says ``Any``, in quotes too."""
    return 0 if annotation is None else len(re.findall(r"\bAny\b", ast.unparse(annotation)))


def count_any_of_signature(function: Function) -> int:
    return sum(count_any(argument.annotation) for argument in list_parameters(function)) + count_any(function.returns)


def count_any_of_aliases(tree: ast.Module) -> int:
    values = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return sum(count_any(value) for value in values if isinstance(value, ast.Subscript | ast.Constant | ast.BinOp))


def show_lengths(lengths: list[int]) -> str:
    return f"median {statistics.median(lengths):g}, p90 {statistics.quantiles(lengths, n=10)[-1]:g}"


def run_python(checkout: Path, code: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {done.stdout[-500:]}{done.stderr[-2000:]}")
    return done.stdout


def build(checkout: Path) -> str:
    """Return the heavy packages that the parent process of a build has imported when it ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "recipe.toml").write_text(RECIPE.format(url=f"http://127.0.0.1:{server.server_port}/v1"))
        for source in ("prompts", "one", "two"):
            rows = [{"id": number, "q": f"What is {number}?", "a": f"{source} " * number} for number in range(1, 9)]
            (folder / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        printed = run_python(checkout, COMMAND, folder)
        server.shutdown()
    return printed.splitlines()[-1].removeprefix("loaded:").strip() or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[2])
    checkout = parser.parse_args().checkout.resolve()
    texts = {
        path: path.read_text(encoding="utf-8") for package in PACKAGES for path in (checkout / package).rglob("*.py")
    }
    trees = {path: ast.parse(text) for path, text in texts.items()}
    functions = [(path, function) for path, tree in trees.items() for function in list_functions(tree)]
    circles = [circle.split() for circle in run_python(checkout, CIRCLES, checkout).splitlines() if circle]
    print(f"files                  {len(texts)}")
    print(f"lines of a file        {show_lengths([text.count(chr(10)) for text in texts.values()])}")
    lengths = [function.end_lineno - function.lineno + 1 for _, function in functions if function.end_lineno]
    print(f"lines of a function    {show_lengths(lengths)} of {len(lengths)}")
    print(f"circles                {len(circles)}, of {sum(map(len, circles))} files")
    for what, of_commands in (("longest parameter list", False), ("options of a command  ", True)):
        path, longest = max(
            (found for found in functions if is_command(found[1]) == of_commands),
            key=lambda found: len(list_parameters(found[1])),
        )
        print(f"{what} {len(list_parameters(longest))}: {longest.name} in {path.relative_to(checkout)}")
    print(f"Any in signatures      {sum(count_any_of_signature(function) for _, function in functions)}")
    print(f"Any in aliases         {sum(map(count_any_of_aliases, trees.values()))}")
    print(f"type: ignore           {sum(text.count('# type: ignore') for text in texts.values())}")
    print(f"a build's parent loads {build(checkout)}")


if __name__ == "__main__":
    main()
