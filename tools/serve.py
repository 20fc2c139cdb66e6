"""Serve the site to whoever writes it: at once if nothing changed, and again after each change.

The rule: a page that is served is the page that `mkdocs build` makes, but for the script that
reloads it. What is left out is said in the log or on the page.

The last build is kept with the SHA-256 of all that it was made of. Labs run in the background, once
the pages can be read, and only after a change of something they depend on.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from mkdocs.livereload import LiveReloadServer

from tools.reuse import inputs

ROOT = Path(__file__).parent.parent
# What a build reads again, and what this process or .venv read once and for all.
CONTENT = ("docs", "reproducibility", "mkdocs.yml", "CHANGELOG.md")
PROGRAMS = ("tools", "requirements.lock", "pyproject.toml")
PUBLISHED = ("REPO_URL", "REVISION")
LABS = "build/labs"  # where a lab that has run appears

log = logging.getLogger("mkdocs.serve")


class Site:
    """The site as it was built last, in `build/serve/`."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.folder = root / "build" / "serve" / "site"
        self.stamp = root / "build" / "serve" / "made-of"
        self.address = ""  # as `make site` builds it where nobody publishes
        self.code = inputs.files_digest(root, PROGRAMS)
        self.started = False

    def made_of(self) -> str:
        """Return the SHA-256 of all that a build by this process is made of."""
        addresses = [os.environ.get(name) for name in PUBLISHED]
        files = inputs.files_digest(self.root, CONTENT)
        ran = sorted(place.name for place in (self.root / LABS).glob("*.ipynb"))
        return inputs.json_digest(files, self.code, addresses, ran, inputs.surroundings_digest())

    def is_current(self) -> bool:
        """Whether the last build was made of what is there now."""
        return self.stamp.is_file() and self.stamp.read_text("utf-8") == self.made_of()

    def build(self) -> None:
        """Build the site, and note what it was made of."""
        # Here, since what is built already is served without all that it was built with.
        from mkdocs.commands.build import build
        from mkdocs.config import load_config

        self.stamp.unlink(missing_ok=True)
        found = self.made_of()
        config = load_config(
            str(self.root / "mkdocs.yml"), site_dir=str(self.folder), site_url=self.address
        )
        if not self.started:
            config.plugins.on_startup(command="serve", dirty=False)
            self.started = True
        build(config)
        self.stamp.write_text(found, "utf-8")


class Labs:
    """Runs in the background the labs that have not run with everything as it is."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.given_up: dict[Path, Path] = {}
        self.busy = threading.Lock()
        self.starting = threading.Lock()
        self.stopping = False
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run what is missing, unless that is being done already; return at once."""
        threading.Thread(target=self.run, daemon=True).start()

    def stop(self) -> None:
        """End what is running, and start nothing more."""
        with self.starting:
            self.stopping = True
            if self.process:
                self.process.kill()

    def run(self) -> None:
        """Run what is missing, and return when it has run; at once where another thread does so."""
        from tools.reuse import lab_outputs  # late, like MkDocs above

        if not self.busy.acquire(blocking=False):
            return
        try:
            while missing := dict(lab_outputs.missing(self.root).items() - self.given_up.items()):
                names = [source.relative_to(self.root).as_posix() for source in sorted(missing)]
                log.info(f"Running in the background: {', '.join(names)}")
                with self.starting:
                    if self.stopping:
                        return
                    self.process = subprocess.Popen(
                        [sys.executable, "-m", "tools.reuse.lab_outputs", *names],
                        cwd=ROOT,
                        process_group=0,  # so that Ctrl-C reaches it through `stop` only
                    )
                failed = self.process.wait()
                if self.stopping:
                    return
                if failed:
                    log.error("A lab failed: it is shown without outputs until something changes.")
                # What has not changed and is still missing would be missing again.
                self.given_up |= dict(missing.items() & lab_outputs.missing(self.root).items())
        finally:
            self.busy.release()


def serve(host: str, port: int, root: Path = ROOT) -> None:
    """Serve the site until Ctrl-C, and build it again after each change."""
    site, labs = Site(root), Labs(root)

    def build() -> None:
        if inputs.files_digest(root, PROGRAMS) != site.code:
            labs.stop()
            log.info("The tools changed: starting again")
            os.execv(sys.executable, sys.orig_argv)
        if not site.is_current():  # a file that was only touched changes no page
            site.build()
        labs.start()

    server = LiveReloadServer(build, host, port, str(site.folder))
    server.error_handler = lambda code: (site.folder / "404.html").read_bytes()
    while not site.is_current():  # something may change while it is built
        build()
    labs.start()
    (root / LABS).mkdir(parents=True, exist_ok=True)
    for name in (*CONTENT, *PROGRAMS, LABS):
        server.watch(str(root / name))
    try:
        server.serve()
    except KeyboardInterrupt:
        log.info("Shutting down")
    finally:
        labs.stop()
        server.shutdown()


def main(root: Path = ROOT) -> None:
    """Serve at the address that is given."""
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(logging.Formatter("%(levelname)-8s-  %(message)s"))
    logging.getLogger("mkdocs").addHandler(to_stderr)
    logging.getLogger("mkdocs").setLevel(logging.INFO)
    address = sys.argv[1]
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16):
        sys.exit(
            f"Cannot serve at {address}: expected HOST:PORT, got {address}. "
            "Name both: make serve HOST=127.0.0.1:8000"
        )
    try:
        socket.create_server((host, int(port))).close()
    except OSError as error:
        sys.exit(
            f"Cannot serve at {address}: expected a free address, got {error}. "
            "Name another: make serve HOST=127.0.0.1:8001"
        )
    log.info("Left out: social cards, the page to print, the zip. `make site` makes them.")
    serve(host, int(port), root)


if __name__ == "__main__":
    main()
