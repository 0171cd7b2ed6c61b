"""Write the files of a new method from templates: a folder with a plugin file, or an installable package."""

from __future__ import annotations

import importlib.util
import keyword
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

from hashbench import registry
from hashbench.errors import HashbenchError, UsageError

TEMPLATES = Path(__file__).parent / "template"
# File to write -> template.
FOLDER = {
    "method.py": "method.py",
    "recipe.yaml": "recipe.yaml",
    "README.md": "README.md",
    "test_method.py": "test_file.py",
}
PACKAGE = {
    "pyproject.toml": "pyproject.toml",
    "${package}/__init__.py": "init.py",
    "${package}/method.py": "method.py",
    "${package}/recipe.yaml": "recipe.yaml",
    "${package}/README.md": "README.md",
    "tests/test_method.py": "test_package.py",
}


def new_method(name: str, into: Path | None = None) -> Path:
    """Write a working method with recipe, README and test, atomically.

    Args:
        name: Name of the method: a Python identifier in lower case.
        into: Folder of a new package `hashbench_NAME`; None: write a folder NAME with a plugin file.

    Returns:
        The folder.

    Raises:
        UsageError: The name is invalid or already used, or the folder exists.
        HashbenchError: The folder cannot be written.
    """
    class_name = "".join(part.capitalize() for part in name.split("_"))
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or {name, class_name} & {*keyword.kwlist}:
        raise UsageError(
            f"{name!r} cannot be the name of a method; use lower-case letters, digits and _, start with a "
            "letter, and avoid Python keywords"
        )
    if name in registry.entries("method"):
        raise UsageError(f"the method {name!r} already exists; choose another name")
    package = f"hashbench_{name}"
    if into and importlib.util.find_spec(package):
        raise UsageError(f"the package {package} already exists; choose another name than {name!r}")
    folder = into or Path(name)
    if folder.exists():
        raise UsageError(f"{folder} already exists; remove it or choose another name")
    # An installed package is found by its entry point; a plugin file needs a table.
    register = "" if into else f'\n\n\nMETHODS = {{"{name}": {class_name}}}'
    words = {"name": name, "Class": class_name, "package": package, "register": register}
    try:
        _write(folder, PACKAGE if into else FOLDER, words)
    except OSError as error:
        raise HashbenchError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def _write(folder: Path, files: Mapping[str, str], words: Mapping[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as partial:
        built = Path(partial, "built")  # other users cannot read the temporary folder itself
        for file, template in files.items():
            path = built / Template(file).substitute(words)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (TEMPLATES / f"{template}.template").read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(words), encoding="utf-8")
        built.rename(folder)
