"""The site, built as it is published, for every test that looks at it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
SOURCES = ("docs", "reproducibility", "tools", "mkdocs.yml", "CHANGELOG.md", "requirements.lock")
ADDRESSES = {
    "SITE_URL": "https://owner.example/name/",
    "REPO_URL": "https://github.com/owner/name",
}


def built_site() -> Path:
    """Return the folder of the site, strictly built with addresses of its own.

    Whoever comes first builds it, and the other workers wait. It is built again when a source has
    changed since, or is gone.
    """
    SITE.parent.mkdir(exist_ok=True)
    done = SITE.with_suffix(".done")
    with SITE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = "\n".join(f"{path} {path.stat().st_mtime_ns}" for path in sources())
        if not done.exists() or done.read_text("utf-8") != state:
            done.unlink(missing_ok=True)
            build(SITE)
            done.write_text(state, "utf-8")
    return SITE


def sources() -> list[Path]:
    """Return every file that the site is made of."""
    found = [path for name in SOURCES for path in [ROOT / name, *(ROOT / name).rglob("*")]]
    return sorted(path for path in found if path.is_file() and path.suffix != ".pyc")


def build(folder: Path) -> None:
    """Build the site into the folder; a warning is an error."""
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | ADDRESSES | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stderr, built.stderr
