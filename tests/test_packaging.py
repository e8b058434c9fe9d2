"""A wheel and an editable install hold the right files, wherever Python is started.

Everything is built offline from a copy of the sources, against the dependencies that are installed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"linalgk": "linalgk", "bench": "linalgk_bench", "kernels": "linalgk_kernels"}
IMPORTED = ("linalgk", "linalgk_kernels.cpu", "linalgk_bench")


def packages_on_disk(root: Path) -> dict[str, str]:
    """Every folder that holds Python files, as installed name: folder."""
    found = {}
    for top, installed in FLOORS.items():
        for file in (root / top).rglob("*.py"):
            folder = file.parent.relative_to(root).as_posix()
            found[".".join([installed, *folder.split("/")[1:]])] = folder
    return found


def packages_listed(pyproject: dict) -> dict[str, str]:
    """What pyproject.toml lists, read as setuptools reads it: the longest mapped parent counts."""
    table = pyproject["tool"]["setuptools"]
    found = {}
    for name in table["packages"]:
        parent = name
        rest: list[str] = []
        while parent and parent not in table["package-dir"]:
            parent, _, last = parent.rpartition(".")
            rest.insert(0, last)
        found[name] = "/".join([table["package-dir"].get(parent, "."), *rest])
    return found


def files_to_ship(root: Path) -> set[str]:
    """The wheel's contents as they follow from the folders, its metadata left out."""
    shipped = set()
    for name, folder in packages_on_disk(root).items():
        files = [f for f in (root / folder).iterdir() if f.is_file()]
        shipped |= {f"{name.replace('.', '/')}/{f.name}" for f in files if f.suffix != ".pyc"}
    return shipped


def run(*command: object, cwd: Path) -> str:
    # PYTHONPATH, PYTHONSAFEPATH and their like would decide what these tests are about.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    litter = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.py[cod]", ".*")
    for top in FLOORS:
        shutil.copytree(ROOT / top, copy / top, ignore=litter)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout) -> Path:
    target = checkout.parent / "wheel"
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", target)
    run(sys.executable, "-m", "pip", "wheel", *options, checkout, cwd=checkout.parent)
    return next(target.glob("*.whl"))


def fresh_python(folder: Path) -> Path:
    """An environment that has every distribution of this one except linalgk."""
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", code, cwd=folder).strip())
    for outer in map(Path, sys.path):
        if outer.name in {"site-packages", "dist-packages"} and outer.is_dir():
            for entry in outer.iterdir():
                left_out = entry.name.startswith(("linalgk", "__editable__", "__pycache__"))
                if not (left_out or entry.suffix == ".pth" or (site / entry.name).exists()):
                    (site / entry.name).symlink_to(entry)
    return python


def install(python: Path, *what: object, cwd: Path) -> None:
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *what, cwd=cwd)


@pytest.fixture(scope="module")
def from_wheel(checkout, wheel) -> Path:
    python = fresh_python(checkout.parent / "from_wheel")
    install(python, wheel, cwd=checkout.parent)
    return python


@pytest.fixture(scope="module")
def from_checkout(checkout, wheel) -> Path:
    python = fresh_python(checkout.parent / "from_checkout")
    install(python, "--editable", checkout, cwd=checkout.parent)
    return python


def origins(python: Path, cwd: Path) -> dict[str, Path]:
    code = (
        f"import importlib, json; print(json.dumps("
        f"{{n: importlib.import_module(n).__file__ for n in {IMPORTED}}}))"
    )
    found = json.loads(run(python, "-c", code, cwd=cwd))
    return {name: Path(file).parent for name, file in found.items()}


def in_checkout(checkout: Path) -> dict[str, Path]:
    folders = ("linalgk", "kernels/cpu", "bench")
    return {name: checkout / folder for name, folder in zip(IMPORTED, folders, strict=True)}


def test_every_package_is_listed():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert packages_listed(pyproject) == packages_on_disk(ROOT)


def test_unlisted_package_is_noticed(tmp_path):
    for file in ("linalgk/__init__.py", "kernels/cuda/launch.py", "bench/__init__.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    listed = {"packages": ["linalgk", "linalgk_bench"], "package-dir": {"linalgk_bench": "bench"}}
    listed["package-dir"]["linalgk"] = "linalgk"
    missing = (
        packages_on_disk(tmp_path).items()
        - packages_listed({"tool": {"setuptools": listed}}).items()
    )
    assert missing == {("linalgk_kernels.cuda", "kernels/cuda")}


def test_kernels_is_no_package():
    # The import name `kernels` belongs to another distribution, which the checkout must not hide.
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_wheel_contents(checkout, wheel):
    names = zipfile.ZipFile(wheel).namelist()
    metadata = re.compile(r"linalgk-[^/]*\.dist-info/")
    contents = {name for name in names if not metadata.match(name)}
    assert contents == files_to_ship(checkout)
    assert contents >= {
        "linalgk/py.typed",
        "linalgk/data/camera.npy",
        "linalgk/data/brick.npy",
        "linalgk_kernels/cpu/__init__.py",
        "linalgk_bench/__init__.py",
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not any("tests/" in name or "test_" in name for name in contents)


def test_wheel_outside_the_checkout(from_wheel, checkout):
    site = origins(from_wheel, checkout.parent)["linalgk"].parent
    assert checkout.parent / "from_wheel" in site.parents
    expected = {name: site / name.replace(".", "/") for name in IMPORTED}
    assert origins(from_wheel, checkout.parent) == expected


def test_wheel_inside_the_checkout(from_wheel, checkout):
    # Python looks first where it was started: linalgk is the checkout's there, the kernels and the
    # bench are the installed ones, since no folder of the checkout has their names.
    site = origins(from_wheel, checkout.parent)["linalgk"].parent
    expected = {name: site / name.replace(".", "/") for name in IMPORTED}
    assert origins(from_wheel, checkout) == expected | {"linalgk": checkout / "linalgk"}


def test_editable_outside_the_checkout(from_checkout, checkout):
    assert origins(from_checkout, checkout.parent) == in_checkout(checkout)


def test_editable_inside_the_checkout(from_checkout, checkout):
    assert origins(from_checkout, checkout) == in_checkout(checkout)


@pytest.mark.parametrize("installed", ["from_wheel", "from_checkout"])
def test_command(installed, request, checkout):
    python = request.getfixturevalue(installed)
    script = python.with_name("linalgk.exe" if sys.platform == "win32" else "linalgk")
    said = [run(script, "--help", cwd=checkout.parent)]
    said.append(run(python, "-m", "linalgk", "--help", cwd=checkout.parent))
    for command in ("info", "warm", "tour", "bench"):
        assert all(command in text for text in said)


def test_readme_example_runs(capsys):
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
    )
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out
