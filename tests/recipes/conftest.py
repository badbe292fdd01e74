"""A copy of the tree in which the recipes of CONTRIBUTING.md are followed: two new files, and no edit elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "runs", "build", "dist")
GENERATED = (
    "README.md",
    "docs/calibration.md",
    "docs/claims.md",
    "docs/metrics.md",
    "docs/objectives.md",
    "docs/objectives/",
    "docs/replication.md",
)
"""What `python -m analysis.documents` writes: a recipe may change these, by running it."""


class Copy:
    """The copied tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added: set[str] = set()
        for name in ("analysis", "docs", "envs", "models", "testbed", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=NOT_COPIED)
        for name in ("README.md", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)
        self.before = {name: path.read_bytes() for name, path in self.files()}

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file by its name in the tree, without what running it leaves."""
        for path in self.folder.rglob("*"):
            if path.is_file() and not {"__pycache__", "runs"} & set(path.parts):
                yield path.relative_to(self.folder).as_posix(), path

    def add(self, path: str, content: str) -> None:
        """Write a file that is not there yet: a recipe edits nothing."""
        target = self.folder / path
        assert not target.exists(), f"{path} is there already"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
        self.added.add(path)

    def run(self, *arguments: str) -> str:
        """`python -m …` with the copy's own code; what it printed. It has to end with 0."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def test(self, *arguments: str) -> None:
        """Run tests of the copy; at least one has to be there and all have to pass."""
        printed = self.run("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments)
        assert " passed" in printed, printed

    def edited(self) -> set[str]:
        """Files that differ from those copied, other than the new ones and what is generated."""
        return {
            name
            for name, path in self.files()
            if name not in self.added and not name.startswith(GENERATED) and self.before.get(name) != path.read_bytes()
        }


@pytest.fixture
def tree(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "tree")
