"""Line coverage of the Go and the Python code from their reports; exit status 1 when both together are under the minimum.

Go's profile counts statements in blocks `file:line.column,line.column statements count`. A line counts as covered when
every block that touches it ran, and code that a generator program is made of (accel/cpu/gen) is left out. What a machine
cannot run counts as not covered: kernels of instruction sets that it lacks, and the parts for PyTorch and Ray without them.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

BLOCK = re.compile(r"(?P<file>.+):(?P<first>\d+)\.\d+,(?P<last>\d+)\.\d+ \d+ (?P<count>\d+)")
GENERATORS = "/gen/"


def go_lines(profile: Path) -> dict[str, tuple[int, int]]:
    """Covered and coverable lines of each package."""
    ran: dict[tuple[str, int, int], bool] = defaultdict(bool)  # one block appears once for each test binary
    for text in profile.read_text().splitlines()[1:]:
        block = BLOCK.fullmatch(text)
        if block and GENERATORS not in block["file"]:
            ran[block["file"], int(block["first"]), int(block["last"])] |= block["count"] != "0"
    lines: dict[tuple[str, int], bool] = {}
    for (file, first, last), covered in ran.items():
        for line in range(first, last + 1):
            lines[file, line] = lines.get((file, line), True) and covered
    packages: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (file, _), covered in lines.items():
        package = file.rpartition("/")[0]
        have, total = packages[package]
        packages[package] = have + covered, total + 1
    return packages


def python_lines(report: Path) -> dict[str, tuple[int, int]]:
    """Covered and coverable lines of each file."""
    files = json.loads(report.read_text())["files"]
    return {
        name: (entry["summary"]["covered_lines"], entry["summary"]["num_statements"]) for name, entry in files.items()
    }


def show(language: str, parts: dict[str, tuple[int, int]]) -> tuple[int, int]:
    for name, (have, total) in sorted(parts.items()):
        print(f"  {100 * have / max(total, 1):6.1f} %  {have:6d}/{total:<6d} {name}")
    have, total = (sum(column) for column in zip(*parts.values(), strict=True))
    print(f"{language} line coverage: {100 * have / total:.1f} % ({have} of {total} lines)")
    return have, total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minimum", type=float, required=True)
    parser.add_argument("go", type=Path)
    parser.add_argument("python", type=Path)
    options = parser.parse_args()
    go, python = show("Go", go_lines(options.go)), show("Python", python_lines(options.python))
    percent = 100 * (go[0] + python[0]) / (go[1] + python[1])
    print(f"line coverage of both: {percent:.1f} %")
    if percent < options.minimum:
        print(f"expected at least {options.minimum:g} %", file=sys.stderr)
    return percent < options.minimum


if __name__ == "__main__":
    sys.exit(main())
