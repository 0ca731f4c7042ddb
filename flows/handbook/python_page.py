"""The functions of ``flows.api`` with their types."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from flows import api

_INTRO = """\
# Python API

`import flows.api as factory`. These names and signatures are kept stable. [A guide](../guides/python.md) shows them at work.
This page is made of the code.
"""


def write_python_page() -> str:
    """Return the page as Markdown."""
    tree = ast.parse(Path(inspect.getfile(api)).read_text(encoding="utf-8"))
    parts = [_INTRO]
    for node in tree.body:
        match node:
            case ast.FunctionDef() if node.name in api.__all__:
                parts += _describe(node, node.name)
            case ast.ClassDef() if node.name in api.__all__:
                parts += [
                    f"## {node.name} {{ #{node.name.lower()} }}\n",
                    f"{_markdown(ast.get_docstring(node) or '')}\n",
                ]
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        parts += _describe(inner, f"{node.name}.{inner.name}", "###")
    parts += [
        "## load_recipe { #load_recipe }\n",
        "```text\nload_recipe(path: Path) -> Recipe\n```\n",
        f"{_markdown(inspect.getdoc(api.load_recipe) or '')}\n",
    ]
    return "\n".join(parts)


def _describe(node: ast.FunctionDef, name: str, level: str = "##") -> Iterator[str]:
    is_property = any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list)
    for each in (*node.args.args, *node.args.kwonlyargs):
        each.annotation = _unquote(each.annotation)
    arguments = re.sub(r"^self(, )?", "", ast.unparse(node.args))
    returns = ast.unparse(_unquote(node.returns) or ast.Constant(None))
    yield f"{level} {name} {{ #{name.lower()} }}\n"
    yield f"```text\n{name}{f': {returns}' if is_property else f'({arguments}) -> {returns}'}\n```\n"
    yield f"{_markdown(ast.get_docstring(node) or '')}\n"


def _unquote(annotation: ast.expr | None) -> ast.expr | None:
    """Return a type that is written as text as what it says."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def _markdown(docstring: str) -> str:
    """Return a docstring in the form of Google's as Markdown: sections as lists."""
    lines, section = [], ""
    for line in docstring.replace("``", "`").splitlines():
        if match := re.fullmatch(r"(Args|Raises|Returns):", line):
            section = match[1]
            lines += [f"**{section}**", ""]
        elif section and (match := re.fullmatch(r"    (\w+): (.*)", line)):
            lines.append(f"- `{match[1]}`: {match[2]}")
        elif section and line.startswith("    "):
            lines.append(f"  {line.strip()}" if line.startswith("        ") else line.strip())
        else:
            lines.append(line)
    return "\n".join(lines)
