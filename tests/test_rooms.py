"""The house stays as it was drawn: who may import whom, what files are called, how long they are.

Every rule is a function from sources to a list of complaints, so that it can be shown to complain.
"""

import ast
import re
import subprocess
import sys
import types
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CAPABILITIES = (
    "matfun", "sketch", "randomized", "kronecker", "tensor", "sparse", "completion", "curvature",
)  # fmt: skip
FRONT_DOOR = ("_xp", "_validate", "_dispatch", "_results", "_config")
PUBLIC_MODULES = {"sketch", "gallery", "grad", "curvature", "optim", "errors", "typing", "testing"}
MAX_LINES = 620
MAX_LINES_FRONT_DOOR = 800
NOT_LOADED_BY_IMPORT = (
    "numba", "cupy", "torch", "jax", "matplotlib", "array_api_compat", "scipy.linalg",
)  # fmt: skip

# --- The table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Room:
    """What the files that match ``files`` may import: anywhere, and inside functions only.

    Entries are patterns over the modules of ``linalgk``, ``linalgk_kernels`` and ``linalgk_bench``
    and over the top-level names of other distributions; ``{room}`` is the folder of the file. The
    standard library is free, and so is whatever stands under ``if TYPE_CHECKING``, but for what is
    named in ``never``.
    """

    files: str
    anywhere: tuple[str, ...] = ()
    lazily: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


ROOM_NAMES = tuple(f"linalgk.{name}" for name in CAPABILITIES)
FRAMEWORKS = ("torch", "jax", "dask")
LEAVES = ("numpy", "linalgk.errors", "linalgk.typing")

# The rows of the design's table, and below them the files that it draws without giving them a row.
# numpy comes with `import linalgk` in any case and `errors` and `typing` are vocabulary: they are
# open to every room of the package, and SciPy to those that compute, where they compute.
ROOMS = (
    Room(
        "linalgk/{capability}/_ops.py",
        # _xp: a reference definition has to ask for the namespace of its arguments
        anywhere=(
            *LEAVES,
            *("linalgk._dispatch", "linalgk._lag", "linalgk._xp", "linalgk.{room}._*_ops"),
        ),
        lazily=("scipy",),
        never=("numba", "cupy", "linalgk_kernels*"),
    ),
    Room(
        "linalgk/{capability}/_*.py",
        anywhere=(
            *LEAVES,
            *("linalgk._validate", "linalgk._xp", "linalgk._results", "linalgk._config"),
            *("linalgk._dispatch", "linalgk._lag", "linalgk._members", "linalgk._pieces"),
            *("linalgk.{room}._*", *ROOM_NAMES),
        ),
        # a framework's own face, where its arrays are differentiated or traced; CuPy's half of
        # SciPy beside SciPy; a progress bar or a plot that was asked for
        lazily=("scipy", "cupyx", "tqdm", "matplotlib*", "linalgk.interop*"),
        never=("numba", "cupy", "linalgk_kernels*"),
    ),
    # themselves imported lazily; they call the algorithms below the doors
    Room(
        "linalgk/interop/*.py",
        anywhere=(
            *LEAVES,
            *("linalgk._validate", "linalgk._xp", "linalgk._results", "linalgk._config"),
            *("linalgk._lag", "linalgk.interop.*", *ROOM_NAMES, "linalgk.matfun._*", *FRAMEWORKS),
            *("linalgk._members", "linalgk.sketch._*", "linalgk.randomized._*"),
            "linalgk.kronecker._*",
        ),
    ),
    # torch: its optimizers are base classes; linalgk: foreach and config_context
    Room("linalgk/optim/*.py", (*LEAVES, "linalgk", *ROOM_NAMES, "linalgk.optim.*", "torch")),
    Room("linalgk/cli.py", (*LEAVES, "linalgk"), lazily=("*",)),
    Room("linalgk/__main__.py", ("linalgk", "linalgk.cli"), lazily=("*",)),
    # names of a room that are not in the flat namespace
    Room("linalgk/tour/*.py", (*LEAVES, "linalgk", "linalgk.tour.*", *ROOM_NAMES), lazily=("*",)),
    Room("linalgk/errors.py", ("numpy",)),
    Room("linalgk/typing.py", ("numpy",)),
    Room("linalgk/testing.py", LEAVES, lazily=("scipy", "mpmath")),
    Room("linalgk/_results.py", LEAVES),
    Room("linalgk/_validate.py", (*LEAVES, "linalgk._xp", "linalgk._config")),
    Room("linalgk/_xp.py", LEAVES, lazily=("array_api_compat", "cupy")),
    Room("linalgk/_dispatch.py", (*LEAVES, "linalgk._xp", "linalgk._config", "linalgk._results")),
    Room(
        "linalgk/_config.py",
        LEAVES,
        lazily=("threadpoolctl", "numba", "scipy", "linalgk_kernels.cpu*"),
    ),
    # what the kernels and SciPy's BLAS found out about the machine
    Room("linalgk/_show.py", (*LEAVES, "linalgk._config"), ("numba", "cupy", "linalgk_kernels.*")),
    Room("linalgk/_lag.py", (*LEAVES, "linalgk._xp"), lazily=("cupyx",)),
    Room("linalgk/_pieces.py", (*LEAVES, "linalgk._config")),
    # the door of rooms whose matrices come in batches, sparse, or as operators
    Room(
        "linalgk/_members.py",
        (*LEAVES, "linalgk._validate", "linalgk._xp", "linalgk._results"),
    ),
    Room(
        "linalgk/_plan.py",
        anywhere=(
            *LEAVES,
            *("linalgk._dispatch", "linalgk._xp", "linalgk._validate", "linalgk._results"),
        ),
    ),
    Room(
        "kernels/cpu/*.py",
        # SciPy brings LAPACK and BLAS in single precision, which NumPy does not call
        anywhere=("numpy", "numba", "llvmlite", "linalgk_kernels.cpu*"),
        lazily=("scipy",),
        never=("linalgk", "linalgk.*"),
    ),
    Room(
        "kernels/cuda/*.py",
        # numpy: scalars of exact types for the arguments
        anywhere=("numpy", "cupy", "linalgk_kernels.cuda*"),
        lazily=("cupyx",),
        never=("linalgk", "linalgk.*"),
    ),
    Room("tests/*.py", ("*",), never=("timeit", "pytest_benchmark")),
    Room(
        "bench/*.py",
        anywhere=("numpy", "pytest", "linalgk", "linalgk.testing", "linalgk_bench*"),
        lazily=("*",),
        never=("linalgk._*", "linalgk.*._*"),
    ),
    Room("docs/*.py", ("*",)),
    # Without a row: the package's own faces, which only pass names on.
    Room("linalgk/__init__.py", ("numpy", "linalgk.*"), never=("numba", "cupy")),
    Room("linalgk/{capability}/__init__.py", (*LEAVES, "linalgk.{room}.*", "linalgk._dispatch")),
    Room("linalgk/gallery.py", (*LEAVES, *ROOM_NAMES)),
    Room("linalgk/grad.py", (*LEAVES, *ROOM_NAMES, "linalgk.matfun._*", "linalgk.kronecker._*")),
    Room("linalgk/data/__init__.py", ("numpy",)),
)


# --- Reading imports -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    target: str
    line: int
    when: str  # "now", "lazily" (inside a function), "typing" (under TYPE_CHECKING)


def module_name(path: str) -> str:
    """The name that the file at ``path`` has once it is installed."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    if parts[0] == "kernels":
        parts[0] = "linalgk_kernels"
    elif parts[0] == "bench":
        parts[0] = "linalgk_bench"
    return ".".join(parts)


class ImportReader(ast.NodeVisitor):
    """Collects the imports of one file, literal ``import_module("…")`` calls included."""

    def __init__(self, path: str, modules: frozenset[str]) -> None:
        name = module_name(path)
        self.package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
        self.modules = modules
        self.when = "now"
        self.found: list[Import] = []

    def add(self, target: str, node: ast.stmt | ast.expr) -> None:
        self.found.append(Import(target, node.lineno, self.when))

    def absolute(self, name: str, level: int) -> str:
        if level == 0:
            return name
        base = self.package.rsplit(".", level - 1)[0]
        return f"{base}.{name}" if name else base

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.absolute(node.module or "", node.level)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            self.add(inner if inner in self.modules else base, node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else None
        called = node.func.id if isinstance(node.func, ast.Name) else called
        literal = node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value
        if called in {"import_module", "__import__"} and isinstance(literal, str):
            name = literal.lstrip(".")
            self.add(self.absolute(name, len(literal) - len(name)), node)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.AST) -> None:
        outer, self.when = self.when, "typing" if self.when == "typing" else "lazily"
        self.generic_visit(node)
        self.when = outer

    def visit_AsyncFunctionDef(self, node: ast.AST) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.AST) -> None:
        self.visit_FunctionDef(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test).split(".")[-1] != "TYPE_CHECKING":
            self.generic_visit(node)
            return
        outer, self.when = self.when, "typing"
        for child in node.body:
            self.visit(child)
        self.when = outer
        for child in node.orelse:
            self.visit(child)


def read_imports(sources: dict[str, str]) -> dict[str, list[Import]]:
    modules = frozenset(map(module_name, sources))
    found = {}
    for path, source in sources.items():
        reader = ImportReader(path, modules)
        reader.visit(ast.parse(source, path))
        found[path] = reader.found
    return found


# --- The rules -----------------------------------------------------------------------------------


def capability(path: str) -> str:
    parts = path.split("/")
    return parts[1] if len(parts) == 3 and parts[1] in CAPABILITIES else ""


def room_of(path: str) -> Room | None:
    name = capability(path) or "-"
    fitting = (r for r in ROOMS if fnmatchcase(path, r.files.format(capability=name)))
    # `_*.py` also fits __init__.py, whose row is the one that names it.
    return max(fitting, key=lambda r: (r.files.count("__init__"), "_ops" in r.files), default=None)


def is_allowed(target: str, patterns: tuple[str, ...], room: str) -> bool:
    return any(fnmatchcase(target, pattern.format(room=room)) for pattern in patterns)


def import_complaints(sources: dict[str, str]) -> list[str]:
    complaints = []
    for path, imports in read_imports(sources).items():
        row = room_of(path)
        if row is None:
            complaints.append(f"{path}: stands in no room of the table")
            continue
        for item in imports:
            top = item.target.partition(".")[0]
            target = item.target if top.startswith("linalgk") else top
            allowed = row.anywhere + (() if item.when == "now" else row.lazily)
            free = top in sys.stdlib_module_names or item.when == "typing"
            fits = free or is_allowed(target, allowed, capability(path))
            if is_allowed(target, row.never, capability(path)) or not fits:
                complaints.append(f"{path}:{item.line}: imports {item.target} ({item.when})")
    return complaints


def circles(sources: dict[str, str]) -> list[str]:
    """A circle of imports inside ``linalgk``, lazy ones included, or nothing.

    A door may ask for a framework's face, which leads back to what is below the doors.
    The package's own ``__init__`` is left out, because it loads names on demand, and so is the
    command line, which may import anything; the ``__init__`` of a room stands for all its files.
    """
    graph: dict[str, set[str]] = {}
    for path, imports in read_imports(sources).items():
        name = module_name(path)
        if not name.startswith("linalgk.") or name.startswith(("linalgk.cli", "linalgk.tour")):
            continue
        graph[name] = {
            item.target
            for item in imports
            if item.when != "typing" and item.target.startswith("linalgk.") and item.target != name
            if not (item.when == "lazily" and item.target.startswith("linalgk.interop"))
        }
        if path.endswith("/__init__.py"):
            folder = path.removesuffix("__init__.py")
            graph[name] |= {module_name(p) for p in sources if p.startswith(folder)} - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


TOPIC_STEM = re.compile(r"(_[a-z][a-z0-9]*)+$|__init__$")
KERNEL_STEM = re.compile(rf"({'|'.join(CAPABILITIES)})(_[a-z0-9]+)*$|_[a-z0-9]+$|__init__$")


def name_complaints(paths: list[str]) -> list[str]:
    complaints = []
    for path in paths:
        folder, _, file = path.rpartition("/")
        stem = file.removesuffix(".py")
        if stem.strip("_") in {"util", "utils", "core"}:
            complaints.append(f"{path}: a drawer, not a topic")
        elif capability(path) and folder.startswith("linalgk/") and not TOPIC_STEM.match(stem):
            complaints.append(f"{path}: topic files are called _<topic>.py")
        elif folder.startswith("kernels/") and not KERNEL_STEM.match(stem):
            complaints.append(f"{path}: kernel files are called <room>_<topic>.py")
    return complaints


def length_complaints(sources: dict[str, str]) -> list[str]:
    lines = {path: len(source.splitlines()) for path, source in sources.items()}
    complaints = [f"{path}: {n} lines" for path, n in lines.items() if n > MAX_LINES]
    front_door = sum(lines.get(f"linalgk/{name}.py", 0) for name in FRONT_DOOR)
    if front_door >= MAX_LINES_FRONT_DOOR:
        complaints.append(f"the front door: {front_door} lines")
    return complaints


def public_name_complaints(names: dict[str, object]) -> list[str]:
    complaints = []
    for name, value in names.items():
        is_module = isinstance(value, types.ModuleType)
        if is_module != (name in PUBLIC_MODULES):
            complaints.append(f"{name} is {'' if is_module else 'not '}a module")
        elif not (is_module or callable(value) or name == "__version__"):
            complaints.append(f"{name} is a {type(value).__name__}")
    return complaints


def loaded_after(statement: str) -> list[str]:
    """Which of the heavy modules a fresh interpreter holds after ``statement``."""
    code = f"import sys\n{statement}\nprint(*set({NOT_LOADED_BY_IMPORT}) & sys.modules.keys())"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


# --- The house as it stands ----------------------------------------------------------------------


@cache
def house() -> dict[str, str]:
    folders = ("linalgk", "kernels", "bench", "tests", "docs")
    files = (f for folder in folders for f in sorted((ROOT / folder).rglob("*.py")))
    return {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in files}


def test_imports_follow_the_table():
    assert import_complaints(house()) == []


def test_no_circles():
    assert circles(house()) == []


def test_names_of_files():
    assert name_complaints(list(house())) == []


def test_lengths_of_files():
    assert length_complaints(house()) == []
    missing = [name for name in FRONT_DOOR if f"linalgk/{name}.py" not in house()]
    assert missing == []


def test_public_names_after_importing_everything():
    code = """
import importlib, importlib.util, pkgutil, sys
sys.path.insert(0, {tests!r})
import linalgk, test_rooms
needs = {{"optim": "torch", "interop._torch": "torch", "interop._jax": "jax",
         "interop._dask": "dask"}}
found = {{name: importlib.util.find_spec(library) for name, library in needs.items()}}
missing = [f"linalgk.{{name}}" for name, spec in found.items() if spec is None]
for found in pkgutil.walk_packages(linalgk.__path__, "linalgk.", onerror=lambda name: None):
    if not found.name.endswith("__main__") and not found.name.startswith(tuple(missing)):
        importlib.import_module(found.name)
names = {{name: getattr(linalgk, name) for name in linalgk.__all__}}
print(test_rooms.public_name_complaints(names))
print(len(linalgk.__all__) == len(set(linalgk.__all__)) > 0)
"""
    command = [sys.executable, "-c", code.format(tests=str(Path(__file__).parent))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:2] == ["[]", "True"]


def test_import_is_light():
    assert loaded_after("import linalgk") == []


# --- The rules can complain ----------------------------------------------------------------------

TOPIC = "linalgk/matfun/_roots.py"


@pytest.mark.parametrize(
    ("path", "source", "bad"),
    [
        (TOPIC, "from .. import errors\nfrom . import _ops\nfrom .._xp import namespace", False),
        (TOPIC, "from ..sketch import SRHT\nimport numpy as np, math", False),
        (TOPIC, "from ..sketch._srht import SRHT", True),
        (TOPIC, "from .. import cli", True),
        (TOPIC, "import numba", True),
        (TOPIC, "from numba import njit", True),
        (TOPIC, "def f():\n    import cupy", True),
        (TOPIC, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cupy", True),
        (TOPIC, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", False),
        (TOPIC, "if TYPE_CHECKING:\n    pass\nelse:\n    import torch", True),
        (TOPIC, "import importlib\nf = lambda: importlib.import_module('numba.core')", True),
        (TOPIC, "from importlib import import_module\nimport_module('..cli', __package__)", True),
        (TOPIC, "import scipy.linalg", True),
        (TOPIC, "def f():\n    from scipy.linalg import schur", False),
        ("linalgk/matfun/_ops.py", "from .. import _validate", True),
        ("linalgk/matfun/_ops.py", "from .. import _dispatch", False),
        ("linalgk/matfun/__init__.py", "from ._roots import sqrtm", False),
        ("linalgk/matfun/__init__.py", "import scipy", True),
        ("linalgk/_validate.py", "from . import _dispatch", True),
        ("linalgk/_xp.py", "import array_api_compat.numpy", True),
        ("linalgk/_xp.py", "def f():\n    import array_api_compat.numpy", False),
        ("linalgk/_config.py", "class C:\n    import numba", True),
        ("linalgk/_config.py", "async def f():\n    import numba", False),
        ("linalgk/_config.py", "from .matfun import sqrtm", True),
        ("linalgk/errors.py", "from . import _xp", True),
        ("linalgk/testing.py", "import mpmath", True),
        ("linalgk/tour/matfun.py", "import matplotlib.pyplot", True),
        ("linalgk/tour/matfun.py", "def f():\n    import matplotlib.pyplot", False),
        ("linalgk/tour/matfun.py", "from linalgk.matfun import _roots", True),
        ("linalgk/interop/torch.py", "import torch", False),
        ("linalgk/interop/torch.py", "from ..matfun import _roots", False),
        ("linalgk/interop/torch.py", "import numba", True),
        ("linalgk/matfun/_roots.py", "from ..interop import _torch", True),
        ("linalgk/matfun/_roots.py", "def f():\n    from ..interop import _torch", False),
        ("linalgk/surprise.py", "", True),
        ("linalgk/surprise/_topic.py", "", True),
        ("kernels/cpu/matfun_roots.py", "import linalgk", True),
        ("kernels/cpu/matfun_roots.py", "def f():\n    from linalgk._xp import g", True),
        ("kernels/cpu/matfun_roots.py", "from ._preset import njit\nimport numba", False),
        ("kernels/cpu/matfun_roots.py", "import scipy", True),
        ("kernels/cuda/matfun_roots.py", "import numba", True),
        ("bench/matfun.py", "import torch", True),
        ("bench/matfun.py", "def f():\n    import torch", False),
        ("bench/matfun.py", "def f():\n    from linalgk.matfun import _roots", True),
        ("tests/matfun/test_roots.py", "import timeit", True),
    ],
)
def test_import_rule_complains(path, source, bad):
    others = ("linalgk/cli.py", "linalgk/errors.py", "linalgk/_xp.py", "linalgk/_validate.py",
              "linalgk/_dispatch.py", "linalgk/matfun/_ops.py", "linalgk/matfun/_roots.py",
              "linalgk/sketch/_srht.py", "linalgk/sketch/__init__.py")  # fmt: skip
    assert bool(import_complaints(dict.fromkeys(others, "") | {path: source})) is bad


def test_circle_rule_complains():
    straight = {
        "linalgk/__init__.py": "from .matfun import sqrtm",
        "linalgk/cli.py": "from .tour import run",
        "linalgk/tour/__init__.py": "from ..cli import main",
        "linalgk/matfun/__init__.py": "",
        "linalgk/matfun/_roots.py": "from ._minimax import schedule",
        "linalgk/matfun/_minimax.py": "",
        "linalgk/sketch/__init__.py": "",
        "linalgk/sketch/_srht.py": "from ..matfun import sqrtm",
    }
    assert circles(straight) == []
    files = straight | {"linalgk/matfun/_minimax.py": "def f():\n    from . import _roots"}
    assert "linalgk.matfun._roots" in circles(files)
    rooms = straight | {"linalgk/matfun/_minimax.py": "from ..sketch import SRHT"}
    assert "linalgk.sketch" in circles(rooms)


@pytest.mark.parametrize(
    "path",
    [
        "linalgk/utils.py",
        "kernels/cpu/_core.py",
        "tests/utils.py",
        "linalgk/matfun/sqrtm.py",
        "linalgk/matfun/_Roots.py",
        "kernels/cpu/roots.py",
    ],
)
def test_name_rule_complains(path):
    assert name_complaints([path])


def test_length_rule_complains():
    assert length_complaints({"linalgk/cli.py": "x\n" * MAX_LINES}) == []
    assert length_complaints({"linalgk/cli.py": "x\n" * (MAX_LINES + 1)})
    share = MAX_LINES_FRONT_DOOR // len(FRONT_DOOR)
    assert length_complaints({f"linalgk/{name}.py": "x\n" * share for name in FRONT_DOOR})
    assert not length_complaints({f"linalgk/{name}.py": "x\n" * (share - 1) for name in FRONT_DOOR})


def test_public_name_rule_complains():
    assert public_name_complaints({"sqrtm": len, "errors": types, "__version__": "0"}) == []
    assert public_name_complaints({"sqrtm": types})
    assert public_name_complaints({"sqrtm": None})
    assert public_name_complaints({"errors": len})


def test_light_import_rule_complains():
    assert loaded_after("import scipy.linalg") == ["scipy.linalg"]
