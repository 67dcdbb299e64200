"""An architecture's code as one module without segplus, saved beside its weights."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
from functools import cache
from pathlib import Path

from transformers import PreTrainedModel

from segplus.files import write_text

# The Auto classes that find an architecture, beside AutoConfig.
AUTO_CLASSES = ("AutoModel", "AutoModelForSemanticSegmentation")
_OWN = "segplus"
_ALLOWED = "segplus.models."
_Import = tuple[str, str | None, str | None]  # module, name in it, name here


def name_flat_module(architecture: type[PreTrainedModel]) -> str:
    """Return the name of the module that is saved beside an architecture's weights."""
    return f"modeling_{architecture.config_class.model_type.replace('-', '_')}"


def write_flat_module(architecture: type[PreTrainedModel], folder: str | os.PathLike[str]) -> None:
    """Write the module into a folder, whole or not at all."""
    path = Path(folder) / f"{name_flat_module(architecture)}.py"
    write_text(path, build_flat_module(architecture.__module__))


@cache
def build_flat_module(module_name: str) -> str:
    """Return the source of a module and of the modules under `segplus.models` that it imports.

    A method that imports segplus itself stays behind, as what needs segplus cannot travel.

    Args:
        module_name: Such as segplus.models.networks.unet.
    Raises:
        ValueError: If a module imports segplus elsewhere, renames what it imports, or two define the same name.
    """
    bodies: dict[str, str] = {}
    imports: set[_Import] = set()
    origins: dict[str, str] = {}
    _collect(module_name, bodies, imports, origins)
    heading = (inspect.getdoc(importlib.import_module(module_name)) or "").splitlines()[0]
    parts = [
        f'"""{heading}\n\nWritten by segplus beside the weights; it needs torch and transformers alone.\n"""',
        "from __future__ import annotations",
        _merge_imports(imports),
        *(body.strip() for body in bodies.values() if body.strip()),
    ]
    return "\n\n".join(parts) + "\n"


def _collect(module_name: str, bodies: dict[str, str], imports: set[_Import], origins: dict[str, str]) -> None:
    source = inspect.getsource(importlib.import_module(module_name))
    statements = ast.parse(source).body
    if ast.get_docstring(ast.parse(source)) is not None:
        dropped: list[ast.stmt] = [statements.pop(0)]
    else:
        dropped = []
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            dropped.append(statement)
            for found in _list_imports(statement):
                _follow(found, module_name, bodies, imports, origins)
        elif isinstance(statement, ast.ClassDef):
            dropped += [member for member in statement.body if _needs_segplus(member)]
        for name in _list_names(statement):
            if origins.setdefault(name, module_name) != module_name:
                raise ValueError(f"{name} is defined in {origins[name]} and in {module_name}: rename one")
    bodies[module_name] = _cut(source, dropped)


def _follow(
    found: _Import, module_name: str, bodies: dict[str, str], imports: set[_Import], origins: dict[str, str]
) -> None:
    """Collect what an import of segplus brings, or keep one of anything else."""
    origin, name, alias = found
    if origin.split(".")[0] != _OWN:
        if origin != "__future__":
            imports.add(found)
        return
    if not origin.startswith(_ALLOWED) or name is None or alias is not None:
        raise ValueError(
            f"{module_name}: code that is saved with weights imports names from {_ALLOWED}* as they are, "
            f"found {origin}{f'.{name}' if name else ''}{f' as {alias}' if alias else ''}"
        )
    if origin not in bodies:
        _collect(origin, bodies, imports, origins)


def _list_imports(statement: ast.Import | ast.ImportFrom) -> list[_Import]:
    if isinstance(statement, ast.Import):
        return [(alias.name, None, alias.asname) for alias in statement.names]
    return [(statement.module or "", alias.name, alias.asname) for alias in statement.names]


def _list_names(statement: ast.stmt) -> list[str]:
    """Return the names that a statement of a module defines."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


def _needs_segplus(member: ast.stmt) -> bool:
    if not isinstance(member, ast.FunctionDef):
        return False
    inner = [node for node in ast.walk(member) if isinstance(node, ast.Import | ast.ImportFrom)]
    return any(origin.split(".")[0] == _OWN for node in inner for origin, _, _ in _list_imports(node))


def _cut(source: str, dropped: list[ast.stmt]) -> str:
    """Return the source without the lines of some statements."""
    lines = source.splitlines()
    gone: set[int] = set()
    for statement in dropped:
        decorators = statement.decorator_list if isinstance(statement, ast.FunctionDef) else []
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        assert statement.end_lineno is not None
        gone.update(range(first, statement.end_lineno + 1))
    return "\n".join(line for number, line in enumerate(lines, start=1) if number not in gone)


def _merge_imports(imports: set[_Import]) -> str:
    whole = {f"import {module}" + (f" as {alias}" if alias else "") for module, name, alias in imports if name is None}
    by_module: dict[str, list[str]] = {}
    for module, name, alias in sorted(imports, key=str):
        if name is not None:
            by_module.setdefault(module, []).append(name + (f" as {alias}" if alias else ""))
    return "\n".join([*sorted(whole), *(f"from {m} import {', '.join(n)}" for m, n in sorted(by_module.items()))])
