"""Who may import whom: lower levels only, and no torch in the dashboard."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The first prefix that matches decides. A module may import modules of its own or a lower level.
LEVELS: tuple[tuple[str, int], ...] = (
    ("cifar_tl.errors", 0),
    ("cifar_tl.config", 0),
    ("cifar_tl.settings", 0),
    ("cifar_tl.presets", 0),
    ("cifar_tl.paths", 0),
    ("cifar_tl.answers", 0),
    ("cifar_tl.runs", 1),
    ("cifar_tl.sweeps", 1),
    ("cifar_tl.advice.answers", 1),
    ("cifar_tl.advice", 4),
    ("cifar_tl.models.catalog", 1),
    ("cifar_tl.data.store", 1),
    ("cifar_tl.data.sources", 1),
    ("cifar_tl.data.cifar", 1),
    ("cifar_tl.data.download", 1),
    ("cifar_tl.data.folder", 1),
    ("cifar_tl.data.progress", 1),
    ("cifar_tl.data.shapes", 1),
    ("cifar_tl.data.sizes", 1),
    ("cifar_tl.data.splits", 1),
    ("cifar_tl.data.decode", 1),
    ("cifar_tl.data.containers", 1),
    ("cifar_tl.data.archive", 1),
    ("cifar_tl.data.bottleneck", 1),
    ("cifar_tl.data.png", 1),
    ("cifar_tl.evaluation.arrays", 1),
    ("cifar_tl.evaluation.analysis", 1),
    ("cifar_tl.evaluation.comparison", 1),
    ("cifar_tl.evaluation.calibration", 1),
    ("cifar_tl.evaluation.class_order", 1),
    ("cifar_tl.evaluation.coverage", 1),
    ("cifar_tl.evaluation.epochs", 1),
    ("cifar_tl.evaluation.selection", 1),
    ("cifar_tl.evaluation.embeddings", 1),
    ("cifar_tl.evaluation.familiarity", 1),
    ("cifar_tl.evaluation.suspicion", 1),
    ("cifar_tl.data.corrections", 1),
    ("cifar_tl.devices", 2),
    ("cifar_tl.group", 2),
    ("cifar_tl.data", 2),
    ("cifar_tl.models", 2),
    ("cifar_tl.training.checkpoint", 3),
    ("cifar_tl.training.prefix_cache", 3),
    ("cifar_tl.training.inputs", 3),
    ("cifar_tl.training.plan", 3),
    ("cifar_tl.explain", 4),
    ("cifar_tl.export.report", 1),
    ("cifar_tl.export", 4),
    ("cifar_tl.inference", 3),
    ("cifar_tl.shrink", 3),
    ("cifar_tl.evaluation.audit", 4),
    ("cifar_tl.evaluation.describe", 4),
    ("cifar_tl.evaluation", 3),
    ("cifar_tl.training", 4),
    ("cifar_tl.probe", 4),
    ("cifar_tl.ui", 5),
    ("cifar_tl.terminal", 5),
    ("cifar_tl.commands", 5),
    ("cifar_tl.sweep_commands", 5),
    ("cifar_tl.advice_commands", 5),
    ("cifar_tl.__main__", 5),
    ("cifar_tl.http", 6),
    ("cifar_tl", 0),
    ("app", 7),
    ("serve", 7),
)
PACKAGES = {"cifar_tl", *(f"cifar_tl.{name}" for name in ("data", "models", "training", "evaluation", "export"))}
TORCH_FAMILY = {"torch", "torchvision", "timm", "accelerate", "safetensors"}
# Level 5 has two sides that do not know each other; the dashboard's side, above it too, sees nothing that needs torch.
DASHBOARD = ("cifar_tl.ui", "cifar_tl.http")
UI_MAY_USE_LEVELS = {0, 1}


def level_of(module: str) -> int | None:
    if module in PACKAGES:
        return 0  # an empty __init__
    return next((level for prefix, level in LEVELS if module == prefix or module.startswith(prefix + ".")), None)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Path]:
    return [ROOT / "app.py", ROOT / "serve.py", *sorted((ROOT / "cifar_tl").rglob("*.py"))]


def imported_modules(path: Path) -> set[str]:
    """Dotted names of everything imported anywhere in the file; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_a_module_imports_its_own_or_lower_levels_only(path):
    module = module_name(path)
    own = level_of(module)
    assert own is not None, f"{module} has no level: add it to LEVELS"
    too_high = {name for name in imported_modules(path) if (level := level_of(name)) is not None and level > own}
    assert not too_high


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_torch_stays_above_level_one_and_streamlit_stays_in_the_dashboard(path):
    module = module_name(path)
    packages = {name.split(".")[0] for name in imported_modules(path)}
    is_ui = module in ("app", "serve") or module.startswith(DASHBOARD)
    if is_ui or (level_of(module) or 0) <= 1:
        assert not packages & TORCH_FAMILY
    if not is_ui:
        assert "streamlit" not in packages


@pytest.mark.parametrize("path", [p for p in sources() if module_name(p).startswith(DASHBOARD)], ids=module_name)
def test_the_dashboard_imports_nothing_of_the_engine(path):
    engine = {
        name
        for name in imported_modules(path)
        if name.startswith("cifar_tl.") and not name.startswith(DASHBOARD) and level_of(name) not in UI_MAY_USE_LEVELS
    }
    assert not engine


def test_importing_every_page_and_every_level_one_module_leaves_torch_out():
    modules = [name for path in sources() if (name := module_name(path)) == "app" or name.startswith(DASHBOARD) or level_of(name) in (0, 1)]
    pages = [name for name in modules if ".ui.pages." in name]
    assert len(pages) >= 4
    # Pages run when imported, as Streamlit runs them; here only what they import counts.
    imports = {name for path in sources() if module_name(path) in modules for name in imported_modules(path)}
    importable = sorted({name for name in {*imports, *modules} if name.startswith("cifar_tl.") and is_module(name)} - set(pages))
    program = f"import importlib, sys\nfor name in {importable!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("False"), done.stderr[-2000:] or "torch was imported"


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
