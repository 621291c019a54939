"""Public Python names and their documentation: each has a docstring, and what can be imported from the package is on a page of docs/reference/api.

Public are modules, classes, functions, methods and properties without an underscore in front; of overloads and setters the definition counts
that has the code. A method has the docstring of the one that it overrides, as `help` shows it. A field, which is what the body of a class or one
of its methods sets, has an entry in the docstring of the class or of a base (see .ci/entries.py). Exit status 1 when something is missing.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from entries import entries

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "bitnet_rust"
PAGES = ROOT / "docs" / "reference" / "api"

# Modules of which users import: all that their __all__ names is on the pages, or all that is public in them.
MODULES = ("", "autograd", "bench", "integrations.ray", "nn", "nn.functional", "optim", "server", "torch", "viz")

# Shown elsewhere: modules are pages of their own, no_grad is of the package, and bench.app is a part of the command.
NOT_SHOWN = {"__version__", "autograd", "autograd.no_grad", "bench", "nn", "optim", "viz", "bench.app", "nn.functional"}

# Fields that are a library's: pydantic's.
OF_LIBRARIES = {"model_config"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public classes, functions, and what is in classes, by dotted names."""
    for node in body:
        if (
            not isinstance(node, Definition)
            or node.name.startswith("_")
            or set(decorators(node)) & {"overload", "setter"}
        ):
            continue
        yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, f"{prefix}{node.name}.")


def fields(cls: ast.ClassDef) -> list[str]:
    """What the body of a class or one of its methods sets, without an underscore in front, and is no method by another name."""
    found: dict[str, ast.expr | None] = {}
    for node in ast.walk(cls):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(one, ast.Name) and node in cls.body:
                    found.setdefault(one.id, node.value)
                elif isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id == "self":
                    found.setdefault(one.attr, None)
    others = {name for name, _ in definitions(cls.body)}
    return [
        name
        for name, value in found.items()
        if not name.startswith("_") and name not in others | OF_LIBRARIES and not is_method(value, others)
    ]


def is_method(value: ast.expr | None, methods: set[str]) -> bool:
    """Whether it is another name for a method, or made by a call that has the docstring as its second argument."""
    if isinstance(value, ast.Name):
        return value.id in methods
    return isinstance(value, ast.Call) and len(value.args) > 1 and isinstance(value.args[1], ast.Constant)


def told(cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    """The names that docstrings tell of: of the class, of its bases in the same module, and of a class whose fields it has."""
    text = ast.get_docstring(cls) or ""
    others = [getattr(base, "id", "") for base in cls.bases] + re.findall(r"^The fields of ``(\w+)``", text)
    names = {name for entry in entries(text) for name in entry.names}
    return names.union(*(told(classes[other], classes) for other in others if other in classes))


def decorators(node: Definition) -> Iterator[str]:
    for decorator in node.decorator_list:
        yield decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")


def undocumented() -> tuple[int, list[str]]:
    """How many public names there are, and those without documentation."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    count, missing = 0, []
    for path, tree in trees.items():
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for name, node in [("the module", tree), *definitions(tree.body)]:
            count += 1
            if not ast.get_docstring(node) and not inherits(name, classes):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
            if isinstance(node, ast.ClassDef):
                known = told(node, classes)
                count += len(fields(node))
                missing += [f"{path.relative_to(ROOT)}: {name}.{field}" for field in fields(node) if field not in known]
    return count, missing


def inherits(name: str, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether a method has a docstring in a base of its class, in the same module."""
    owner, _, method = name.rpartition(".")
    bases = [classes.get(getattr(base, "id", "")) for base in classes[owner].bases] if owner in classes else []
    return any(
        inherits(f"{base.name}.{method}", classes)
        or any(n == f"{base.name}.{method}" and ast.get_docstring(d) for n, d in definitions([base]))
        for base in bases
        if base is not None
    )


def importable(module: str) -> list[str]:
    """What users import from a module: its __all__, or its public definitions."""
    path = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return [name for name, _ in definitions(tree.body) if "." not in name]


def not_on_a_page() -> tuple[int, list[str]]:
    """How many names can be imported, and those that no page of the reference shows."""
    shown = set(
        re.findall(
            r"^::: bitnet_rust\.(\S+)$", "\n".join(p.read_text("utf-8") for p in PAGES.glob("*.md")), re.MULTILINE
        )
    )
    names = [f"{module}.{name}".removeprefix(".") for module in MODULES for name in importable(module)]
    names = [name for name in names if name not in NOT_SHOWN]
    return len(names), [name for name in names if name not in shown and name.rpartition(".")[0] not in shown]


def main() -> int:
    count, missing = undocumented()
    print(f"Python  {count - len(missing)} of {count} public names have documentation")
    exported, absent = not_on_a_page()
    print(f"        {exported - len(absent)} of {exported} names that users import are in the reference")
    for title, names in (
        ("these have no docstring, or no entry in that of their class", missing),
        ("these are on no page of docs/reference/api", absent),
    ):
        if names:
            print(f"{title}:\n  " + "\n  ".join(names), file=sys.stderr)
    return 1 if missing or absent else 0


if __name__ == "__main__":
    sys.exit(main())
