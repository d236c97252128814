"""What a queued job reads: the code, the configuration and the array as they were when it was submitted.

    RUN/code-<digest>/            the packages, COMMIT, and CHANGES.patch where the tree differed from its commit
    RUN/submitted-<digest>.yaml   the whole configuration; submitted.yaml is the newest one
    RUN/array-<digest>.txt        a line of `key=value` for each run of an array

A digest is of the content, so that nothing that a queued or running job reads ever changes: submitting other code or
another configuration adds files, and the same ones are there already.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from livetrain.core.files import fsync_folder, write_text
from livetrain.tracking.environment import COMMIT, code_version

PACKAGES = ("livetrain", "shards", "slurm", "launch", "configs", "pyproject.toml")
CHANGES = "CHANGES.patch"
SUBMITTED = "submitted.yaml"
DIGITS = 12


def keep_code(repo: Path, run_dir: Path) -> Path:
    """Copy the packages of `repo` into run_dir/code-<digest>, where they are not there yet. Returns the folder."""
    files = sorted(_files(repo))
    version, changes = code_version(repo) or "", _changes(repo)
    digest = hashlib.sha256(f"{version}\n{changes}".encode())
    for path in files:
        digest.update(f"{path.relative_to(repo)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    target = run_dir / f"code-{digest.hexdigest()[:DIGITS]}"
    if target.is_dir():
        return target
    aside = run_dir / f".{target.name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    for path in files:
        copy = aside / path.relative_to(repo)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    write_text(aside / COMMIT, f"{version}\n")
    if changes:
        write_text(aside / CHANGES, changes)
    aside.rename(target)
    fsync_folder(run_dir)
    return target


def keep_text(run_dir: Path, name: str, text: str) -> Path:
    """Write run_dir/<stem>-<digest><suffix> and, for people, run_dir/<name>. Returns the first."""
    target = run_dir / name_of(name, text)
    for path in (target, run_dir / name):
        write_text(path, text)
    return target


def name_of(name: str, text: str) -> str:
    """The name with the digest of a text in it: <stem>-<digest><suffix>."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
    return f"{Path(name).stem}-{digest}{Path(name).suffix}"


def _files(repo: Path) -> Iterator[Path]:
    for name in PACKAGES:
        if (repo / name).is_file():
            yield repo / name
        for path in (repo / name).rglob("*"):
            parts = path.relative_to(repo).parts
            hidden = any(part == "__pycache__" or part.startswith(".") for part in parts)
            if path.is_file() and path.suffix != ".pyc" and not hidden:
                yield path


def _changes(repo: Path) -> str:
    """What differs from the commit, new files too, as a patch; "" without a repository."""

    def git(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(["git", "-C", str(repo), *arguments], capture_output=True, text=True, timeout=60)
        if done.returncode not in codes:
            raise subprocess.CalledProcessError(done.returncode, "git")
        return done.stdout

    try:
        patch = git("diff", "HEAD", "--binary")
        for name in git("ls-files", "--others", "--exclude-standard", "-z", "--", *PACKAGES).split("\0"):
            patch += git("diff", "--no-index", "--", "/dev/null", name, codes=(0, 1)) if name else ""
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return patch
