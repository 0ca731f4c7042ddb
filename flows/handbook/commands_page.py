"""Every command of ``factory`` with its arguments and options."""

from collections.abc import Iterator
from typing import Any

import typer.main

from flows.cli import app

_INTRO = """\
# Commands

`factory COMMAND --help` says the same. A mistake that you can mend is one sentence and exit code 1; Ctrl-C ends a command
with 130 and leaves what was answered committed. This page is made of the code.
"""


def write_commands_page() -> str:
    """Return the page as Markdown."""
    return "\n".join([_INTRO, *_describe(typer.main.get_command(app), "factory")])


def _describe(command: Any, name: str) -> Iterator[str]:
    """Yield a command's help; of a group that of its commands."""
    if commands := getattr(command, "commands", None):
        for each, inner in commands.items():
            yield from _describe(inner, f"{name} {each}")
        return
    shown = [param for param in command.params if not param.hidden and param.name != "help"]
    places = [_usage(param) for param in shown if param.param_type_name == "argument"]
    yield f"## {name} {{ #{name.replace(' ', '-')} }}\n"
    yield f"{(command.help or '').strip()}\n"
    yield "```text"
    yield " ".join([name, *places, *(["[OPTIONS]"] if len(places) < len(shown) else [])])
    yield "```\n"
    if shown:
        yield "| | | default |"
        yield "| --- | --- | --- |"
        for param in shown:
            title = _usage(param) if param.param_type_name == "argument" else ", ".join(param.opts)
            default = "" if param.default in (None, [], ()) or callable(param.default) else f"`{param.default}`"
            note = (getattr(param, "help", None) or "").replace("|", "\\|")
            yield f"| `{title}` | {note} | {default if param.default is not False else ''} |"
        yield ""


def _usage(param: Any) -> str:
    name = param.metavar or param.name.upper()
    return name if param.required else f"[{name}]"
