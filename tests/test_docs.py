"""The documentation says what the code does: hooks, names, options, commands, exit codes, links, examples."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from gancore import api, errors, hookspecs, testing
from gancore.cli.exits import BROKEN_PIPE
from gancore.cli.main import cli
from gancore.cli.options import layers, parse_overrides
from gancore.cli.plan import _phase_text, describe
from gancore.cli.plugins import compatibility
from gancore.config import resolve
from gancore.declaration import Declaration
from gancore.errors import GancoreError
from gancore.metrics import Samples
from gancore.plugin_manager import Origin, discover
from gancore.randomness import Rng
from gancore.run_context import RunContext
from gancore.specs import Claims, MethodSpec
from gancore.step import Step
from gancore.testing import run_steps, tiny_session

ROOT = Path(__file__).resolve().parent.parent
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
PAGES = [*TOP, *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
TUTORIAL = ROOT / "docs" / "tutorial-first-plugin.md"
HOOKS = ROOT / "docs" / "hooks.md"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """Fenced code of a language."""
    return [found["code"] for found in FENCE.finditer(read(path)) if found["info"].split(" ")[0] == language]


def prose(path: Path) -> str:
    """A page without its fenced code."""
    return FENCE.sub("", read(path))


def squeezed(text: str) -> str:
    """Without white space, since help texts wrap at hyphens too."""
    return "".join(text.split())


def load_generator() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("gancore_docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = load_generator()


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tutorial's plugin, extracted and installed as far as Python can tell."""
    root = tmp_path_factory.mktemp("tutorial")
    for found in FENCE.finditer(read(TUTORIAL)):
        file = re.search(r"file=(\S+)", found["info"])
        if file:
            path = root / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found["code"], encoding="utf-8")
    project = tomllib.loads(read(root / "pyproject.toml"))["project"]
    entries = project["entry-points"]["gancore.plugins"]
    info = root / "src" / f"gancore_steady-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[gancore.plugins]", *lines, ""]), encoding="utf-8")
    sys.path.insert(0, str(root / "src"))
    importlib.invalidate_caches()
    yield root
    sys.path.remove(str(root / "src"))
    for name in [name for name in sys.modules if name.split(".")[0] == "gancore_steady"]:
        del sys.modules[name]


# Hooks and public names.


def hooks_of(*classes: type) -> list[tuple[str, list[str]]]:
    """Names and arguments, in the order of the source."""
    return [
        (name, list(inspect.signature(function).parameters)[1:])
        for cls in classes
        for name, function in vars(cls).items()
        if not name.startswith("_")
    ]


def test_every_hook_is_documented_with_its_arguments_in_firing_order() -> None:
    expected = [
        f"### `{name}({', '.join(arguments)})`"
        for name, arguments in hooks_of(hookspecs.DiscoveryHooks, hookspecs.RunHooks)
    ]
    headings = re.findall(r"^### `(?!plan\.).*`$", read(HOOKS), re.MULTILINE)
    assert headings == expected


def test_every_hook_stands_in_the_documented_loop() -> None:
    loop = blocks(HOOKS, "text")[0]
    for name, _ in hooks_of(hookspecs.DiscoveryHooks, hookspecs.RunHooks):
        assert re.search(rf"^(\w+, )*{name}\b", loop, re.MULTILINE), name


def test_every_hook_has_a_test() -> None:
    tests = [
        path for path in ROOT.glob("**/tests/**/*.py") if ".nox" not in path.parts and path != Path(__file__)
    ]
    code = "\n".join(read(path) for path in tests)
    for name, _ in hooks_of(hookspecs.DiscoveryHooks, hookspecs.RunHooks):
        assert re.search(rf'\bdef {name}\(|"{name}"|\b{name}=', code), f"no test uses the hook '{name}'"


def test_what_a_declaration_can_say_is_documented_with_its_signature() -> None:
    expected = []
    for name, function in vars(Declaration).items():
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        parts = []
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
                parts.append("*")
            default = "" if parameter.default is parameter.empty else f"={parameter.default!r}".replace("'", '"')
            parts.append(f"{parameter.name}{default}")
        expected.append(f"### `plan.{name}({', '.join(parts)})`")
    assert re.findall(r"^### `plan\..*`$", read(HOOKS), re.MULTILINE) == expected


def members(cls: type) -> set[str]:
    names = {name for name in vars(cls) if not name.startswith("_")}
    names |= {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    return names


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("Declaration", {"taps", "shape", "num_classes"}),
        ("Step", members(Step)),
        ("RunContext", members(RunContext)),
        ("MethodSpec and claims", (members(MethodSpec) | members(Claims)) - {"check_api", "load"}),
        ("Augment", {name for name in vars(api.Augment) if not name.startswith("_")} | {"sides"}),
        ("Samples", members(Samples)),
        ("Rng", members(Rng)),
        (
            "Testing",
            {n for n, v in vars(testing).items() if inspect.isfunction(v) and v.__module__ == testing.__name__},
        ),
    ],
)
def test_members_are_documented(section: str, names: set[str]) -> None:
    text = re.split(rf"^## {section}$", read(HOOKS), flags=re.MULTILINE)[1].split("\n## ")[0]
    missing = sorted(name for name in names if not re.search(rf"`[^`]*\b{name}\b[^`]*`", text))
    assert missing == []


def test_every_public_name_is_mentioned() -> None:
    text = "\n".join(read(path) for path in PAGES)
    names = sorted(api.__all__)
    assert [name for name in names if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", text)] == []


# Generated parts.


@pytest.mark.parametrize("page", GENERATE.pages(), ids=name_of)
def test_generated_parts_are_those_of_the_code(page: Path) -> None:
    """Apart from white space: versions of click wrap lines differently."""
    text = read(page)
    assert "<!-- generated:" in text
    assert squeezed(GENERATE.regenerate(text, discover())) == squeezed(text), "run: python docs/generate.py"


def test_the_documented_help_is_what_the_command_prints() -> None:
    page = squeezed(read(ROOT / "docs" / "cli.md"))
    for path, command in GENERATE.commands():
        arguments = [*path.split()[1:], "--help"]
        printed = CliRunner().invoke(cli, arguments, prog_name="gan", terminal_width=GENERATE.WIDTH)
        assert printed.exit_code == 0
        assert squeezed(printed.output) in page, path
        for parameter in command.params:
            for flag in (*parameter.opts, *parameter.secondary_opts) if parameter.opts[0][:1] == "-" else ():
                assert flag in printed.output


def test_exit_codes() -> None:
    classes = {
        cls.exit_code: name
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, GancoreError)
    }
    table = re.findall(r"^\| (\d+) \| (?:`(\w+)`|-) \|", read(ROOT / "docs" / "cli.md"), re.MULTILINE)
    assert {int(code): name for code, name in table} == {0: "", **classes, BROKEN_PIPE: ""}
    table = re.findall(r"^\| (\d+) \|", read(ROOT / "docs" / "quickstart.md"), re.MULTILINE)
    assert {int(code) for code in table} == {0, *classes, BROKEN_PIPE}


# The method card.


def test_the_card_states_the_rows_that_adaptivemix_costs() -> None:
    card = read(ROOT / "plugins" / "adaptivemix" / "README.md")
    cases: dict[str, dict[str, Any]] = {
        "without AdaptiveMix": {"adaptivemix.weight": 0},
        "`paper`": {},
        "`official`": {"adaptivemix.preset": "official"},
    }
    for label, overrides in cases.items():
        session = tiny_session(["adaptivemix"], overrides)
        cells = []
        for phase in ("d", "g"):
            program = session.plan.full_program(phase)
            assert program is not None
            inside = sum(len(group.views) for group in program.feature_groups)
            rows = sum(len(group.views) for group in program.groups)
            cells.append(f"{rows} B" + (f", and {inside} B from the tap on" if inside else ""))
        assert f"| {label} | {' | '.join(cells)} |" in card
        session.close()


@pytest.mark.parametrize("card", sorted(ROOT.glob("plugins/*/README.md")), ids=name_of)
def test_a_card_has_all_its_parts(card: Path) -> None:
    parts = ("How to use", "Options", "Deviations", "Mixing", "Cost", "Measured results")
    assert [part for part in parts if f"\n## {part}\n" not in read(card)] == []
    assert "```bibtex" in read(card)


# Links.


def anchors(path: Path) -> set[str]:
    """What a heading is called in a link, as GitHub does it."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        number = 0
        while (name := slug if not number else f"{slug}-{number}") in found:
            number += 1
        found.add(name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        outside = ROOT not in (path, *path.parents)
        if outside or not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(target)
    assert dead == []


def test_every_page_is_linked() -> None:
    linked = set()
    for page in PAGES:
        targets = re.findall(r"\]\(([^)\s#]+)", prose(page))
        linked |= {(page.parent / target).resolve() for target in targets if not re.match(r"[a-z]+:", target)}
    assert [name_of(page) for page in PAGES if page not in linked and page != ROOT / "README.md"] == []


def test_guarantees_name_tests_that_exist() -> None:
    named = [found for page in PAGES for found in re.findall(r"\[`(\S+\.py)::(\w+)`\]\((\S+)\)", read(page))]
    assert len(named) >= 8
    for file, function, target in named:
        assert file == target
        tree = ast.parse(read(ROOT / file))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, function


# Commands.


def test_the_two_lines_of_the_readme_are_what_runs() -> None:
    lines = blocks(ROOT / "README.md", "sh")[0].strip().splitlines()
    assert lines == [
        "python -m pip install nox && python -m nox -s demo",
        "python -m pip install nox && python -m nox -s tests",
    ]
    assert lines[1] in read(ROOT / ".ci" / "run").splitlines()


def test_every_nox_session_is_explained() -> None:
    tree = ast.parse(read(ROOT / "noxfile.py"))
    sessions = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("session" in ast.unparse(d) for d in node.decorator_list)
    }
    table = re.findall(r"^\| `(\w+)` \|", read(ROOT / "CONTRIBUTING.md"), re.MULTILINE)
    assert set(table) == sessions


def shell_commands() -> list[tuple[str, str]]:
    """Lines of shell blocks that call ``gan``, with their page."""
    return [
        (name_of(page), line.split(" #")[0].strip())
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.splitlines()
        if line.startswith("gan ")
    ]


def test_commands_in_shell_blocks_would_run(tutorial: Path) -> None:
    registry = discover()
    commands = shell_commands()
    assert len(commands) > 20
    for page, line in commands:
        where = f"{page}: {line}"
        words = shlex.split(line)[1:]
        context = click.Context(cli, info_name="gan")
        command: click.Command = cli
        while isinstance(command, click.Group):
            found = command.get_command(context, words[0])
            assert found is not None, where
            command = found
            try:
                context = command.make_context(words[0], words[1:], parent=context)
            except click.ClickException as error:
                pytest.fail(f"{where}: {error.format_message()}")
            words = words[1:]
            if isinstance(command, click.Group):
                context = click.Context(command, info_name=command.name, parent=context.parent)
        given = dict(context.params)
        try:
            if line.split()[1] in ("train", "plan"):
                for name in ("outdir", "dry_run", "as_json"):
                    given.pop(name, None)
                preset = given.pop("preset")
                resolve(registry, layers(**given), preset=preset)
            elif line.startswith("gan plugins check"):
                overrides = parse_overrides(given["overrides"])
                answer = compatibility(registry, list(given["names"]), overrides)
                assert answer["compatible"], f"{where}: {answer}"
            elif line.startswith("gan plugins show"):
                assert given["name"] in {*registry.methods, *registry.networks}, where
        except GancoreError as error:
            pytest.fail(f"{where}: {error}")


def test_commands_in_the_text_exist() -> None:
    known = dict(GENERATE.commands())
    wrong = []
    for page in PAGES:
        for line in re.findall(r"`(gan [^`\n]+)`", prose(page)):
            words = line.split()
            path = next((p for p in (" ".join(words[:3]), " ".join(words[:2]), words[0]) if p in known), "")
            command = known[path]
            flags = {
                flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)
            }
            flags |= {"--help", "-h"}
            rest = words[len(path.split()) :]
            used = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            unknown = used - flags
            if unknown or (isinstance(command, click.Group) and rest and rest[0].isalpha()):
                wrong.append(f"{name_of(page)}: {line}")
    assert wrong == []


# Examples.


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles_and_data_parses(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, name_of(page), "exec")
        assert max(map(len, code.splitlines())) <= 114
    for code in blocks(page, "toml"):
        tomllib.loads(code)


def test_the_readme_as_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = next(code for code in blocks(ROOT / "README.md", "python") if "import gancore\n" in code)
    assert '"train.steps": 500' in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace('"train.steps": 500', '"train.steps": 2'), "README.md", "exec"), {})
    assert capsys.readouterr().out.split()[-1] == "True"


def test_the_plugin_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(code for code in blocks(ROOT / "README.md", "python") if "gancore_mirrored" in code)
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    module = types.ModuleType("gancore_mirrored")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "README.md", "exec"), module.__dict__)
    registry = discover()
    registry.register(module, Origin("readme", "0"))
    session = run_steps(tiny_session(["mirrored", "hinge"], registry=registry), 2)
    assert session.trainer.telemetry.is_finite()
    assert [term.key for term in session.plan.active("d", 0)].count("mirrored/same") == 1
    session.close()


def test_the_plugin_of_the_tutorial(tutorial: Path) -> None:
    """It is found through its entry point, and its own tests pass."""
    registry = discover()
    assert registry.broken == {}
    assert registry.origins["steady"].distribution == "gancore-steady"
    assert compatibility(registry, ["steady", "wgan", "r1"], {})["compatible"]
    spec = importlib.util.spec_from_file_location("test_steady", tutorial / "tests" / "test_steady.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 5
    for test in tests:
        test()


def test_the_package_of_the_tutorial_imports_no_torch(tutorial: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(tutorial / 'src')!r})\n"
        "from gancore.plugin_manager import discover\n"
        "spec = discover().method('steady'); spec.claims(spec.options())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_plan_in_concepts_is_the_plan() -> None:
    page = ROOT / "docs" / "concepts.md"
    shown = next(code for code in blocks(page, "text") if code.startswith("phase d\n"))
    session = tiny_session(["adaptivemix", "r1"], {"train.batch": 16})
    facts = describe(session)
    session.close()
    assert shown.splitlines() == _phase_text(facts["phases"][0], facts)
