"""The files that are for people and for other programs: workflows, changelog, contributing."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import REPO

WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (REPO / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE))


def steps_of(path: Path) -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job.get("steps", [])]


def targets_in(command: str) -> list[str]:
    return re.findall(r"\bmake ([a-z][a-z0-9-]*)", command)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_make_targets_that_there_are(path: Path) -> None:
    called = [target for step in steps_of(path) for target in targets_in(step.get("run", ""))]
    assert called
    assert set(called) <= TARGETS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_do_no_more_than_they_say(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert "uses" in job or name in ("pypi", "release") or "timeout-minutes" in job, name
    assert all("@" in step["uses"] for step in steps_of(path) if "uses" in step)


def test_ci_runs_all_that_make_test_does() -> None:
    rules = {m[1]: m[2] for m in re.finditer(r"^([a-z][a-z0-9-]*):((?:.|\\\n)*?)$", MAKEFILE, re.MULTILINE)}
    recipe = re.search(r"^test: .*\n\t\$\(MAKE\) (.*)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    parts = {word for word in (rules["test"] + " " + recipe[1]).split() if word in TARGETS}
    assert {"lint", "test-go", "test-py", "test-fuzz"} <= parts
    (ci,) = (path for path in WORKFLOWS if path.name == "ci.yml")
    called = {target for step in steps_of(ci) for target in targets_in(step.get("run", ""))}
    assert parts - called == set()


def test_workflows_run_what_make_test_leaves_out() -> None:
    called = {target for path in WORKFLOWS for step in steps_of(path) for target in targets_in(step.get("run", ""))}
    assert {"cover", "test-full", "wheels"} <= called


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", "docs/how-to/develop.md"])
def test_pages_name_make_targets_that_there_are(page: str) -> None:
    shown = "\n".join(re.findall(r"```sh\n.*?```|`[^`\n]+`", (REPO / page).read_text(), re.DOTALL))
    assert set(targets_in(shown)) <= TARGETS


def test_the_changelog_has_the_form_that_it_says() -> None:
    text = (REPO / "CHANGELOG.md").read_text()
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[0] == "[Unreleased]"
    for title in titles[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+[^\]]*\] - \d{4}-\d\d-\d\d", title), title
    parts = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= parts
    assert [title for title in titles if f"\n{title.split(' - ')[0]}: https://" not in text] == []


def test_the_citation_and_the_tags_are_of_versions_in_the_changelog() -> None:
    told = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)$", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    cited = [(citation["version"], str(citation["date-released"]))] if "version" in citation else []
    assert cited == told[:1]
    tags = subprocess.run(["git", "tag", "--list", "v*"], cwd=REPO, capture_output=True, text=True).stdout.split()
    assert {tag.removeprefix("v") for tag in tags} <= {version for version, _ in told}


def test_release_notes_are_the_part_of_a_version(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- later\n\n## [1.2.3] - 2026-01-02\n\n### Fixed\n\n- [a link](x), this\n\n"
        "## [1.2] - 2025-01-02\n\n- old\n\n[1.2.3]: https://example.org\n"
    )

    def notes(version: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "-s", "--no-print-directory", "-f", REPO / "Makefile", "release-notes", f"VERSION={version}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert notes("v1.2.3").stdout.strip() == "### Fixed\n\n- [a link](x), this"
    assert notes("1.2").stdout.strip() == "- old"
    unknown = notes("v9.9.9")
    assert unknown.returncode != 0
    assert "CHANGELOG.md has no part ## [9.9.9]" in unknown.stderr
