"""Binds this checkout as ``lyra_pack``, and reads goldens through one recording fixture.

With pytest-xdist (``-n 2``) the files of tests are spread over processes, and what each has read and left out comes
together again in the first one, so that nothing is told or found differently.
"""

import atexit
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of the processes that tests start compiles all again
sys.dont_write_bytecode = False
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads slow a busy machine thirtyfold
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores
os.environ["LYRA_CACHE"] = tempfile.mkdtemp(prefix="lyra-tests-")  # what tests remember is no user's
atexit.register(shutil.rmtree, os.environ["LYRA_CACHE"], ignore_errors=True)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
from safetensors import safe_open  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
GOLDENS = Path(os.environ.get("LYRA_GOLDENS") or ROOT / "tests" / "data" / "goldens")

NEEDS = {  # a word of a skip's reason, and how many of what are told
    "comfy_api": "files of node tests (need ComfyUI's Python: .ci/run finds it)",
    "COMFYUI_DIR": "in a real ComfyUI (need COMFYUI_DIR)",
    "CUDA": "on a GPU (need CUDA)",
}
UNUSED = (  # patterns of golden:key that nothing here computes; a folder of LYRA_GOLDENS may hold them
    "*:in.rgb0",  # filler
    "*:cond_frame_*",  # the reference's condition frame
    "*:patch*",  # renders in parts
    "decoder/visualisation:*",  # the reference's coloured depth and wave video
)


def bound(name: str, file: Path):
    """A module under a name, from a file of this checkout."""
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pack = bound("lyra_pack", ROOT / "__init__.py")
packed = bound("packed", ROOT / "tests" / "packed.py")  # as the other test files import it
bound("wires", ROOT / "tests" / "wires.py")

TOGETHER = ("tests/comfyui/",)  # folders whose files share what is slow to start
read: set[tuple[str, str | None]] = set()  # (golden, tensor key or None for a keyless file) that tests have used
counts: dict[str, list[int]] = {}  # area -> [golden tests selected, golden tests deselected]
left_out = {"deselected": 0}  # tests of any area


@cache
def golden_names() -> dict[str, Path]:
    """Every golden below GOLDENS: ``decoder/forward_static`` for tensors, packed or not, the file name for others."""
    files = sorted(p for p in GOLDENS.rglob("*") if p.is_file() and p.name != "README.md")
    stems = {stem(p) for p in files if holds_tensors(p)}
    return {
        (stem(p) if holds_tensors(p) else p).relative_to(GOLDENS).as_posix(): p
        for p in files
        if not (p.suffix == ".json" and p.with_suffix("") in stems)
    }


def holds_tensors(path: Path) -> bool:
    return path.name.endswith((".safetensors", ".safetensors.packed"))


def stem(path: Path) -> Path:
    return path.with_name(path.name.partition(".safetensors")[0])


unpacked = cache(packed.unpack)


class Golden:
    """One golden: tensors by key, the JSON beside them as ``meta``; what is read is recorded."""

    def __init__(self, name: str):
        self.name, self.area = name, name.split("/")[0]
        self._path = golden_names()[name]

    @property
    def meta(self) -> dict:
        return json.loads(stem(self._path).with_suffix(".json").read_text())

    @property
    def path(self) -> Path:
        """The file itself, for goldens that are not safetensors."""
        read.add((self.name, None))
        return self._path

    def __iter__(self):
        if self._path.suffix == ".packed":
            return iter(sorted(unpacked(self._path)))
        with safe_open(self._path, "pt") as file:
            return iter(sorted(file.keys()))

    def __getitem__(self, key: str):
        read.add((self.name, key))
        if self._path.suffix == ".packed":
            return unpacked(self._path)[key].clone()
        with safe_open(self._path, "pt") as file:
            return file.get_tensor(key)

    def other(self, name: str) -> "Golden":
        """Another golden of the same area."""
        return Golden(f"{self.area}/{name}")


@pytest.fixture
def golden(request) -> Golden:
    return Golden(request.param)


def pytest_unconfigure():
    """A worker of pytest-xdist ends without what atexit was told."""
    shutil.rmtree(os.environ["LYRA_CACHE"], ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long forms: more mutations, more kills, the soak")
    parser.addoption("--figures", metavar="FILE", help="write what the soak measured to this Markdown file")


@pytest.fixture(scope="session")
def long(pytestconfig) -> bool:
    """Whether the long form of a test is wanted."""
    return pytestconfig.getoption("--long")


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    names = [name for name in golden_names() if any(fnmatch(name, pattern) for pattern in marker.args)]
    there, asked = ({name.split("/")[0] for name in some} for some in (golden_names(), marker.args))
    if not names and (asked & there or not there):  # a folder may lack a whole area, whose tests are skipped
        raise pytest.UsageError(f"no golden in {GOLDENS} matches {marker.args}")
    metafunc.parametrize("golden", names, indirect=True, ids=names)


def area_of(item) -> str | None:
    golden = getattr(item, "callspec", None) and item.callspec.params.get("golden")
    return golden.split("/")[0] if isinstance(golden, str) else None  # pytest marks an empty set by a sentinel


def pytest_deselected(items):
    left_out["deselected"] += len(items)
    for item in items:
        if area := area_of(item):
            counts.setdefault(area, [0, 0])[1] += 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if area := area_of(item):
            counts.setdefault(area, [0, 0])[0] += 1


def is_unused(name: str, key: str | None) -> bool:
    """Whether a golden's key is one of UNUSED."""
    return any(fnmatch(f"{name}:{key}", pattern) for pattern in UNUSED)


def unread(area: str) -> list[str]:
    """Keys and files of an area that no test has used, besides UNUSED."""
    left = []
    for name in golden_names():
        if name.split("/")[0] != area:
            continue
        keys = list(Golden(name)) if holds_tensors(golden_names()[name]) else [None]
        left += [f"{name}:{k}" if k else name for k in keys if (name, k) not in read and not is_unused(name, k)]
    return left


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Whole files go to one worker, in the order of collection: the slow ones of TOGETHER first."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return ByFile(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Add what a worker has read and left out; every worker selects the same tests."""
    told = getattr(node, "workeroutput", {}).get("lyra", {})
    read.update(map(tuple, told.get("read", ())))
    counts.update(told.get("counts", {}))
    left_out.update(told.get("left_out", {}))


def pytest_sessionfinish(session, exitstatus):
    """Fail when a whole area ran and left a golden unread; a worker only tells what it has read."""
    if hasattr(session.config, "workeroutput"):
        told = {"read": sorted(read, key=str), "counts": counts, "left_out": left_out}
        session.config.workeroutput["lyra"] = told
        return
    whole = {Path(arg).resolve() for arg in session.config.args} <= {ROOT, ROOT / "tests"}
    if not whole or session.config.option.collectonly or exitstatus not in (0, 1):
        return
    for area, (selected, deselected) in counts.items():
        if selected and not deselected and (left := unread(area)):
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            reporter.write_line(f"\n{len(left)} goldens of {area} were compared by no test:", red=True)
            for name in left[:40]:
                reporter.write_line(f"  {name}", red=True)
            session.exitstatus = 1


@pytest.fixture(scope="session")
def browser() -> dict[str, str]:
    """The environment in which our scripts find their browser, or a skip that says what is missing."""
    core, chromium = os.environ.get("PLAYWRIGHT_CORE"), os.environ.get("CHROMIUM_PATH") or shutil.which("chromium")
    if not shutil.which("node"):
        pytest.skip("no node: nothing to drive a browser with")
    if not core or not Path(core, "node_modules", "playwright-core").is_dir():
        pytest.skip("PLAYWRIGHT_CORE names no folder whose node_modules hold playwright-core")
    if not chromium or not Path(chromium).exists():
        pytest.skip("no chromium; install it or set CHROMIUM_PATH")
    return os.environ | {"PLAYWRIGHT_CORE": core, "CHROMIUM_PATH": chromium}


def needed(report) -> str:
    """What a skipped test or file wants, or "others"."""
    return next((what for word, what in NEEDS.items() if word in str(report.longrepr)), "others (reasons above)")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """One line, after all others: what ran and what was left out."""
    result = yield
    stats = {kind: len(terminalreporter.stats.get(kind, [])) for kind in ("passed", "failed", "error")} | left_out
    ran = ", ".join(f"{count} {kind}" for kind, count in stats.items() if count) or "nothing"
    left = Counter(map(needed, terminalreporter.stats.get("skipped", [])))
    skipped = ", ".join(f"{count} {what}" for what, count in left.items()) or "nothing"
    terminalreporter.write_line(f"Ran on Python {sys.version.split()[0]}: {ran}. Skipped: {skipped}.")
    return result
