"""The registry: built-in plugins, plugins of packages, and plugin files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hashbench
import hashbench_datasets
import hashbench_methods
from hashbench import HashbenchError, HashMethod, UsageError, create_method, plugin_files, registry
from hashbench.data.dataset import DatasetPlugin
from hashbench.experiment.definition import read_experiment
from hashbench.registry import Entry

PLUGIN = '''
"""A method that takes colours at face value."""

import torch
from hashbench import HashMethod

class Mean(HashMethod):
    def training_losses(self, *views):
        return {"loss": self.backbone.pooled(views[0]).square().mean()}

    def encode(self, images):
        return self.backbone.pooled(images)[:, : self.bits]

METHODS = {"mean": Mean}
'''
AT_ITS_END = "import atexit, sys\n'pytest' in sys.modules or atexit.register(print, 'noise')\n"


@pytest.fixture(autouse=True)
def no_plugin_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.PLUGIN_FILES, "paths", [])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that works like site-packages, for packages and their metadata."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def install(site: Path, package: str, source: str, entry_points: str) -> None:
    (site / package).mkdir()
    (site / package / "__init__.py").write_text(source)
    metadata = site / f"{package}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(entry_points)


@pytest.mark.parametrize("kind", ["method", "dataset"])
def test_every_built_in_loads_and_is_described(kind: registry.Kind) -> None:
    base = HashMethod if kind == "method" else DatasetPlugin
    for entry in registry.entries(kind).values():
        assert issubclass(entry.load(), base)
        assert entry.summary()
        assert entry.sources()


def test_every_folder_and_module_is_in_a_table() -> None:
    for package, table in ((hashbench_methods, "METHODS"), (hashbench_datasets, "DATASETS")):
        names = {path.stem for path in Path(package.__path__[0]).iterdir() if path.stem[0] not in "._"}
        names -= {"py"}  # py.typed
        registered = {
            target.partition(":")[0].rpartition(".")[2] for target in getattr(package, table).values()
        }
        assert names == registered


def test_every_method_has_a_recipe_and_a_card() -> None:
    for entry in registry.entries("method").values():
        recipe = entry.recipe()
        assert recipe is not None
        assert (recipe.parent / "README.md").is_file()


def test_listing_imports_neither_torch_nor_a_plugin() -> None:
    code = (
        "import sys; from hashbench import registry\n"
        "for kind in ('method', 'dataset'): [e.summary() for e in registry.entries(kind).values()]\n"
        "heavy = ('torch', 'numpy', 'hashbench_methods.', 'hashbench_datasets.')\n"
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UsageError, match="unknown method 'whc'; did you mean 'wch'"):
        registry.find("method", "whc")
    with pytest.raises(UsageError, match="unknown dataset 'zzz'; known: cifar10, coco, digits, fashionmnist"):
        hashbench.load_dataset("zzz")
    with pytest.raises(UsageError, match="unknown protocol of digits 'offical'"):
        hashbench.load_dataset("digits", "offical")


def test_a_plugin_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    (tmp_path / "mine.yaml").write_text("defaults: {}\n")
    registry.add_plugin_file(path)
    entry = registry.find("method", "mean")
    assert entry.origin == "file"
    assert entry.summary() == "A method that takes colours at face value."
    assert entry.recipe() == tmp_path / "mine.yaml"
    assert entry.load() is entry.load()
    assert issubclass(entry.load(), HashMethod)
    assert registry.broken("method") == {}


def test_a_plugin_file_is_parsed_again_only_when_its_content_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    registry.add_plugin_file(path)
    written = path.stat()
    path.write_text(PLUGIN.replace('"mean"', '"maen"'))  # as long as before, and at the same time
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert "maen" in registry.entries("method")
    monkeypatch.setattr(plugin_files, "parse_source", None)
    assert "maen" in registry.entries("method")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "cannot be read: No such file"),
        ("def", "is not Python"),
        ("x = 1", "registers no plugin; add METHODS"),
        ('METHODS = {"a": "b"}', r'line 1: write METHODS = {"name": Class}'),
        ('METHODS = {"a": A, "a": B}', r'line 1: write METHODS = {"name": Class}, each name once'),
        ('METHODS = {"a": A, "b": module.B}', "line 1: write METHODS"),
        ('METHODS: dict[str, type] = {"a": "A"}', "line 1: write METHODS"),
        ("METHODS = make()", r'line 1: write METHODS = {"name": Class}'),
        ("x = " + "-" * 100_000 + "1", "is not Python: it is nested too deeply for Python"),
        ("x" + ".x" * 100_000, "is not Python: it is nested too deeply for Python|registers no plugin"),
        ("x = " + "9" * 5000, "is not Python: Exceeds the limit"),
        ("\0", "is not Python: source code string cannot contain null bytes"),
        ("x" + "[0]" * 90 + " = 1\n", "registers no plugin; add METHODS"),
    ],
)
def test_files_that_are_no_plugins(tmp_path: Path, source: str | None, message: str) -> None:
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(UsageError, match=message):
        registry.add_plugin_file(path)


@pytest.mark.parametrize("name", ["mine.txt", "mine.v2.py"])
def test_files_that_cannot_be_imported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PLUGIN)
    with pytest.raises(UsageError, match=rf"expected a plugin file NAME\.py .* got \S*{name}; rename it"):
        registry.add_plugin_file(tmp_path / name)


def test_installed_packages_register_by_entry_point(installed: Path) -> None:
    install(installed, "theirs", PLUGIN, "[hashbench.methods]\nmean = theirs:Mean\n")
    entry = registry.find("method", "mean")
    assert entry == Entry("method", "mean", "theirs:Mean", "package theirs 1.2")
    assert "theirs" not in sys.modules
    assert issubclass(entry.load(), HashMethod)
    assert [file.name for file in entry.sources()] == ["__init__.py"]


def test_a_name_seen_twice_names_both(installed: Path) -> None:
    install(installed, "rival", PLUGIN, "[hashbench.methods]\nwch = rival:Mean\n")
    with pytest.raises(UsageError) as error:
        registry.entries("method")
    assert "hashbench_methods.wch:WCH" in str(error.value)
    assert "rival:Mean" in str(error.value)


def test_a_name_that_cannot_be_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.replace('"mean"', '"../mean"'))
    registry.add_plugin_file(path)
    with pytest.raises(UsageError, match=r"method '\.\./mean' .*expected a letter, a digit"):
        registry.entries("method")
    path.write_text(PLUGIN.replace('"mean"', f'"{"m" * 5000}"'))
    with pytest.raises(UsageError, match=r"method 'm{149}… .*, 100 characters at most"):
        registry.entries("method")


def test_a_package_is_found_once_it_is_installed(installed: Path) -> None:
    """The entry points are read only once, until a folder of packages changes."""
    assert "mean" not in registry.entries("method")
    read = registry._entry_points.cache_info().misses
    registry.entries("method")
    assert registry._entry_points.cache_info().misses == read
    install(installed, "whole", PLUGIN, "[hashbench.methods]\nmean = whole:Mean\n")
    assert registry.entries("method")["mean"].origin == "package whole 1.2"


def test_broken_plugins_are_listed_and_fail_when_used(installed: Path) -> None:
    reasons = {
        "lacking": ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        "half": ("def", "SyntaxError: invalid syntax"),
        "false": ("assert False", "AssertionError: "),
        "leaving": ("import sys; sys.exit(3)", "SystemExit: 3"),
        "noisy": ("print('noise')\nraise KeyError('x')", "KeyError: 'x'"),
        "late": (f"{AT_ITS_END}raise KeyError('x')", "KeyError: 'x'"),
        "binary": ("import os\nos.write(1, b'\\xff')\nraise KeyError('x')", "KeyError: 'x'"),
        "deep": ("x" + "[0" * 5000, "SyntaxError: too many nested parentheses"),
    }
    for name, (source, _) in reasons.items():
        install(installed, name, source, f"[hashbench.methods]\n{name} = {name}:Torn\n")
    install(installed, "whole", PLUGIN, "[hashbench.methods]\nmean = whole:Mean\n")
    broken = registry.broken("method")
    assert broken.keys() == reasons.keys()
    for name, (_, reason) in reasons.items():
        assert broken[name].startswith(reason)
        assert isinstance(registry.find("method", name).summary(), str)
        message = rf"method '{name}' \({name}:Torn, package {name} 1.2\) cannot be loaded: "
        with pytest.raises(HashbenchError, match=message):
            registry.find("method", name).load()
    assert registry.find("method", "wch").load()


@pytest.mark.parametrize("output", ["", "noise\n"])
def test_a_plugin_that_ends_python_without_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    registry.add_plugin_file(tmp_path / "mine.py")
    ended = subprocess.CompletedProcess([], 0, output, "")  # as by os._exit(0)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert registry.broken("method") == {"mean": "importing it ended Python: "}


def test_a_module_of_a_package_stands_for_the_package(installed: Path) -> None:
    install(installed, "theirs", "", "[hashbench.methods]\nmean = theirs.mean:Mean\n")
    (installed / "theirs" / "mean.py").write_text(PLUGIN)
    (installed / "theirs" / "losses.py").write_text("")
    (installed / "theirs" / "recipe.yaml").write_text("defaults: {}")
    entry = registry.find("method", "mean")
    assert [file.name for file in entry.sources()] == ["mean.py", "__init__.py", "losses.py"]
    assert entry.recipe() == installed / "theirs" / "recipe.yaml"
    assert entry.summary() == "A method that takes colours at face value."


def test_a_dataset_that_calls_itself_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        'from hashbench_datasets.digits import Digits\nclass Mine(Digits): ...\nDATASETS = {"mine": Mine}\n'
    )
    registry.add_plugin_file(path)
    with pytest.raises(HashbenchError, match="expected the dataset mine@default .*, got digits@default"):
        hashbench.load_dataset("mine")


def test_a_plugin_of_the_wrong_kind(installed: Path) -> None:
    install(installed, "odd", "class Odd: ...", "[hashbench.datasets]\nodd = odd:Odd\n")
    with pytest.raises(
        HashbenchError, match="is not a class derived from hashbench.data.dataset.DatasetPlugin"
    ):
        hashbench.load_dataset("odd")
    assert "is not a class" in registry.broken("dataset")["odd"]


def test_create_method_checks_hyperparameters() -> None:
    backbone = hashbench.create_backbone("test_resnet", image_size=32, pretrained=False)
    method = create_method("wch", backbone, 16, patch_weighting=False)
    assert method.bits == 16
    with pytest.raises(
        UsageError, match="unknown hyperparameter 'patch_weights'; did you mean 'patch_weighting'"
    ):
        create_method("wch", backbone, 16, patch_weights=False)


def test_an_alias_stands_for_its_method() -> None:
    assert registry.find("method", "ugh") == registry.find("method", "greedyhash")
    assert "ugh" not in registry.entries("method")
    (entry,) = read_experiment({"name": "x", "methods": ["ugh"], "datasets": ["digits"]}).methods
    assert entry.name == "greedyhash"
    assert all(name not in registry.entries("method") for name in hashbench_methods.ALIASES)
