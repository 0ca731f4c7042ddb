"""Write the reference, build the site, and leave nothing in it that asks for the network.

python -m flows.handbook [--serve]
"""

import re
import subprocess
import sys
from pathlib import Path

from flows.handbook.commands_page import write_commands_page
from flows.handbook.python_page import write_python_page
from flows.handbook.recipe_page import write_recipe_page
from flows.handbook.tables_page import write_tables_page

ROOT = Path(__file__).parents[2]

PAGES = {
    "settings": write_recipe_page,
    "tables": write_tables_page,
    "commands": write_commands_page,
    "python": write_python_page,
}
"""What writes each page of the reference."""

_SHIM = re.compile(r"https://unpkg\.com/iframe-worker/shim(?:@[^\"]*)?")
"""Where the theme has its search from, on pages that are opened as files; ours lies beside them."""

_OUR_SHIM = "stylesheets/search_of_files.js"


def write_reference(folder: Path) -> None:
    """Write the pages that are made of the code."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in PAGES.items():
        text = write().rstrip() + "\n"
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def main() -> int:
    """Build the site into ``site``; return the exit code."""
    write_reference(ROOT / "docs" / "reference")
    if "--serve" in sys.argv:
        return subprocess.run([sys.executable, "-m", "zensical", "serve"], cwd=ROOT).returncode
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT)
    if built.returncode == 0:
        leave_network(ROOT / "site")
    return built.returncode


def leave_network(site: Path) -> None:
    """Have the pages of a site load nothing from elsewhere."""
    for page in site.rglob("*.html"):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = page.read_text(encoding="utf-8")
        page.write_text(_SHIM.sub(f"{up}{_OUR_SHIM}", text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
