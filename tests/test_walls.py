"""Rooms import one way: each may import only what stands above it in the plan of the house."""

import ast
from pathlib import Path

import pytest

import gateway

ROOT = Path(gateway.__file__).parent
RANK = {
    name: rank
    for rank, names in enumerate(
        (
            "errors logging __init__",
            "model acme cmp",
            "asn1 metrics tracing",
            "pki",
            "wire",
            "config",
            "audit store",
            "ca validation",
            "ra",
            "web",
            "assemble",
            "reload supervise",
            "cli",
            "__main__",
        )
    )
    for name in names.split()
}
PURE = ("errors", "model", "acme", "cmp", "asn1", "pki", "wire")
CONCRETE = ("gateway.store.sqlite", "gateway.store.postgres", "gateway.wire", "gateway.web")
BACKENDS = tuple(
    f"gateway.ca.{p.stem}" for p in (ROOT / "ca").glob("*") if p.stem not in {"__init__", "__pycache__", "interfaces", "verify"}
)
SOURCES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def starts(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == p or module.startswith(f"{p}.") for p in prefixes)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "gateway" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[room(path)], f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", [p for p in SOURCES if room(p) == "ra"], ids=name)
def test_registration_authority_sees_interfaces_only(path: Path) -> None:
    bad = [m for m in imports(path) if starts(m, CONCRETE + BACKENDS)]
    assert not bad


@pytest.mark.parametrize("path", [p for p in SOURCES if room(p) == "web"], ids=name)
def test_web_sees_neither_backends_nor_store(path: Path) -> None:
    bad = [m for m in imports(path) if starts(m, ("gateway.ca", "gateway.store"))]
    assert not bad


@pytest.mark.parametrize("path", [p for p in SOURCES if room(p) != "web"], ids=name)
def test_only_web_speaks_aiohttp_web(path: Path) -> None:
    assert "aiohttp.web" not in imports(path)


@pytest.mark.parametrize("path", [p for p in SOURCES if room(p) in PURE or name(p).startswith("ra/policy")], ids=name)
def test_pure_rooms_do_no_io_and_read_no_clock(path: Path) -> None:
    io = ("asyncio", "socket", "aiohttp", "sqlite3", "subprocess", "pathlib", "time", "threading", "structlog", "gateway.metrics")
    assert not [m for m in imports(path) if starts(m, io)]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in {"now", "utcnow", "today"}, f"{name(path)}:{node.lineno} reads the clock"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input"}, f"{name(path)}:{node.lineno} does I/O"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
