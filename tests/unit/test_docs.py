"""docs/security.md says nothing that no test holds, and every link of the documentation leads somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix() for path in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"))
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAME = re.compile(r"\[(test_\w+)\]")


def statements(text: str) -> list[str]:
    """Items of lists and paragraphs below the second heading, whole; tables and examples belong to what follows."""
    body = text.partition("\n## Ray\n")[2]
    blocks = re.split(r"\n\s*\n|\n(?=- )", body)
    return [block for block in blocks if block.strip() and not block.strip("\n").startswith(("#", "|", "    "))]


def names_of_tests() -> set[str]:
    return {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }


def test_every_statement_about_security_names_a_test_that_there_is() -> None:
    text = (REPOSITORY / "docs/security.md").read_text()
    known = names_of_tests()
    missing = sorted({name for name in NAME.findall(text) if name not in known})
    assert missing == []
    bare = [block for block in statements(text) if not NAME.search(block) and not block.rstrip().endswith(":")]
    assert bare == []


def test_nothing_is_passed_through_a_shell() -> None:
    shells = re.compile(r"shell=True|os\.system|os\.popen|getoutput|[\"'](?:/bin/)?(?:ba|da)?sh[\"'],")
    found = [
        f"{path.name}: {line.strip()}"
        for path in (REPOSITORY / "src").rglob("*.py")
        for line in path.read_text().splitlines()
        if shells.search(line)
    ]
    # A process that does nothing, by a text that never changes: what Ray's driver takes for the head's raylet.
    words = 'subprocess.Popen(argv, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE)'
    # And the scripts of Host.shell, which never change either.
    assert sorted(found) == [
        f"server.py: process = {words}",
        'shell.py: LOCAL = ("sh", "-s")',
        'ssh.py: argv = SshAddress.parse(self._address).command(self._control, "exec", "sh", "-s")',
    ]
    scripts = [
        line.strip()
        for path in (REPOSITORY / "src").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\.shell\(", line)
    ]
    assert scripts == ["said = host.shell(SCRIPT, timeout=TIMEOUT_S)"]


def without_code(text: str) -> str:
    """Of a page in Markdown, what is no example: blocks are indented by four, or fenced."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE))


def anchors_of(text: str) -> set[str]:
    """What headings are called, by forges and by mkdocs alike."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_there_are(page: str) -> None:
    missing = []
    for link in LINK.findall(without_code((REPOSITORY / page).read_text())):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        path = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        if not path.exists() or (anchor and anchor not in anchors_of(path.read_text())):
            missing.append(link)
    assert missing == []


def test_the_readme_is_short_and_keeps_the_two_commands_and_the_one_for_tests() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.encode()) <= 6 * 1024
    for words in ("vllmray up --role head", "vllmray up --role worker --head-ip", "scripts/test", "scripts/demo"):
        assert words in text


def test_every_page_is_in_the_sites_navigation_and_in_the_readme() -> None:
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    assert {name for name in pages if name not in (REPOSITORY / "mkdocs.yml").read_text()} == set()
    readme = (REPOSITORY / "README.md").read_text()
    assert {name for name in pages - {"index.md"} if f"docs/{name}" not in readme} == set()


OF_OTHERS = (
    *("no such host", "Version mismatch", "connectFullMesh failed", "remote=[127", "Every node should have a unique"),
    *("Waiting for creating a placement group", "Watchdog caught", "Error while creating shared memory", "ibv_reg_mr"),
    *("Too many open files", "Read-only file system", "EngineDeadError", "Failed to initialize NVML", "Retry-After"),
    *("unsatisfied condition", "could not pull"),
)
"""Messages in docs/troubleshooting.md that are Ray's, vLLM's, NCCL's, Docker's or the kernel's, or put together."""


def texts_of_the_source() -> str:
    """Every text of the code, without docstrings, and without what is put into it as it runs."""
    found = []
    for path in (REPOSITORY / "src").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in alone]
        found += [node.value for node in constants if isinstance(node.value, str)]
    return "\n".join(found)


def test_every_message_in_the_troubleshooting_is_one_that_the_code_has() -> None:
    rows = re.findall(r"^\| (.*?) \|", (REPOSITORY / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    ours = [message for message in messages if not message.startswith(OF_OTHERS)]
    assert len(ours) > 20
    source = texts_of_the_source()
    fixed = {message: max(re.split(r"…|nvidia|\S*\d\S*", message), key=len).strip(" :;") for message in ours}
    for message, words in fixed.items():
        assert words in source, message
