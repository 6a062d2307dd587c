"""The API reference: a page for each room of the package, and one for the commands.

Nothing here is written by hand. The pages come from the docstrings, their order from the layers in
`pyproject.toml`.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "lumiere_jax"
COMMANDS = "commands"

INTRODUCTION = """\
# API reference

Every module of the package, from its docstrings. **[P]**, **[N]** and **[C]** mark what is quoted
from the paper, what others report, and what this project chose: see [the design](../design.md).
"""


def names() -> list[str]:
    """The commands, then the rooms, from the top layer down."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [COMMANDS, *(room for layer in layers for room in re.split(r"[ |:]+", layer))]


def nav() -> list[dict[str, str]]:
    """The entries of the reference in the site's navigation."""
    rooms = [{title(name): f"reference/{name}.md"} for name in names()]
    return [{"Overview": "reference/index.md"}, *rooms]


def title(name: str) -> str:
    """The title of a page."""
    return name.replace("_", " ").capitalize()


def pages() -> dict[str, str]:
    """Every page of the reference: its path in the site, and its Markdown."""
    found = {f"reference/{name}.md": _page(name) for name in names()}
    return {"reference/index.md": _index(), **found}


def docstring(module: str) -> str:
    """The docstring of a module, or "" where there is none."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def _package(name: str) -> str:
    return PACKAGE if name == COMMANDS else f"{PACKAGE}.{name}"


def _modules(name: str) -> list[str]:
    package = _package(name)
    folder = ROOT / package.replace(".", "/")
    files = sorted(folder.glob("*.py") if name == COMMANDS else folder.rglob("*.py"))
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    modules = (name.removesuffix(".__init__") for name in names)
    return [module for module in modules if module != package and "._" not in module]


def _page(name: str) -> str:
    # A command has nothing to call: its docstring says what it does.
    options = "\n    options: {members: false}"
    modules = [f"::: {m}{options * (name == COMMANDS)}" for m in _modules(name)]
    return "\n\n".join([f"# {title(name)}", f"::: {_package(name)}{options}", *modules, ""])


def _index() -> str:
    return INTRODUCTION + "".join(_table(name) for name in names())


def _table(name: str) -> str:
    rows = [
        f"| [`{module.removeprefix(f'{_package(name)}.')}`]({name}.md#{module}) "
        f"| {docstring(module).splitlines()[0]} |"
        for module in _modules(name)
    ]
    heading = f"## [{title(name)}]({name}.md)"
    return "\n".join(["", heading, "", "| module | |", "|---|---|", *rows, ""])
