"""Which files a notebook's results depend on: itself and the `helpers` modules it imports, found without importing."""

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def of(path: Path | str) -> list[Path]:
    """`path` (a notebook or a module) followed by the modules of `helpers` that it imports, directly or not, sorted.

    Imports inside functions count; those by name (`importlib`) do not. A file that Python cannot read is a
    ValueError which names it.

    >>> [path.name for path in of(PACKAGE / "sources.py")]
    ['sources.py']
    """
    path = Path(path).resolve()
    modules = {module.stem for module in PACKAGE.glob("*.py")}
    found: set[Path] = set()
    waiting = {path}
    while waiting:
        current = waiting.pop()
        found.add(current)
        waiting |= {PACKAGE / f"{name}.py" for name in _imported(current) & modules} - found
    return [path, *sorted(found - {path})]


def digest(paths: Iterable[Path | str]) -> str:
    """Hash of the files' code, 12 hexadecimal digits: names and bytes; of a notebook only its code cells.

    Saving a notebook with outputs, or changing its prose, leaves the digest as it is.
    """
    total = hashlib.sha256()
    for path in map(Path, paths):
        code = code_of(path)
        total.update(f"{path.name}\0{len(code)}\0{code}".encode())
    return total.hexdigest()[:12]


def code_of(path: Path) -> str:
    """The Python code in a module, or in a notebook's code cells (lines of shell and magics are blanked)."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    try:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a notebook, got {error!r}") from None
    return "\n".join(_plain(source) for source in sources if not source.startswith("%%"))


def _plain(source: str) -> str:
    return "\n".join("" if line.lstrip().startswith(("%", "!", "?")) else line for line in source.splitlines())


def _imported(path: Path) -> set[str]:
    """Modules of `helpers` that `path`'s import statements may name, "__init__" among them where they name any."""
    try:
        names = _named(code_of(path))
    except SyntaxError as error:
        raise ValueError(f"{path}: expected Python, got {error.msg} on line {error.lineno}") from None
    own = [name.split(".") for name in names if name.split(".")[0] == PACKAGE.name]
    return {parts[1] for parts in own if len(parts) > 1} | ({"__init__"} if own else set())


@functools.lru_cache(maxsize=1024)  # by the code itself: a run asks for each file some sixty times
def _named(code: str) -> tuple[str, ...]:
    return tuple(name for node in ast.walk(ast.parse(code)) for name in _names(node))


def _names(node: ast.AST) -> Iterator[str]:
    """Dotted names that an import statement may mean; relative ones are taken from `helpers`, which is flat."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = f"{PACKAGE.name}.{base}".rstrip(".")
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
