"""Pack the built site so that it can be read from a disk, without a server or a network.

The rule: only what a browser cannot do under file:// is changed. Links name their index.html, since
there is no server to find it; the search index is a script, since nothing may be fetched; modules
become blobs, since nothing may be imported.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from posixpath import dirname, join, normpath
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ARCHIVE = "reproducibility-site"  # of the archive, and of the one folder in it
# Without a server nothing is lost, no crawler comes, and nobody debugs the theme. The theme's
# lunr files are for search in other languages.
NOT_PACKED = re.compile(
    rf"(404\.html|robots\.txt|sitemap\.xml(\.gz)?|{ARCHIVE}\.zip|.*\.map|assets/javascripts/lunr/.*)$"
)
LINK = re.compile(
    r'(<(?:a|link)\b[^>]*?\shref="|<meta http-equiv="refresh" content="0; url=)([^"#?]+)'
)
MODULE = re.compile(r'<script (?=[^>]*type="module")[^>]*src="([^"]+)"[^>]*></script>')
PRELOAD = re.compile(r'<link rel="preload"[^>]*>')  # is a request across origins, so refused
ITSELF = re.compile(rf'<a\b[^>]*\b{ARCHIVE}\.zip"[^>]*>(.*?)</a>', re.DOTALL)
SHIM = "vendor/iframe-worker/shim.js"  # the search worker, as a frame
IMPORT_FROM_DISK = r"""
const addresses = {};

function importFromDisk(name) {
  return import(addressOf(name));
}

// A blob's own imports name blobs, too.
function addressOf(name) {
  const named = (path) => new URL(path, `file:///${name}`).pathname.slice(1);
  const linked = (_, path) => `"${addressOf(named(path))}"`;
  const text = () => modules[name].replace(/"(\.{1,2}\/[^"]+\.mjs)"/g, linked);
  const blob = () => new Blob([text()], { type: "text/javascript" });
  return (addresses[name] ??= URL.createObjectURL(blob()));
}
"""


def write_archive(site: Path) -> None:
    """Write the archive into the site: the same bytes whenever the site has the same bytes."""
    with ZipFile(site / f"{ARCHIVE}.zip", "w") as archive:
        for name, content in sorted(files_from_disk(site).items()):
            entry = ZipInfo(f"{ARCHIVE}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # a readable file, on Unix
            archive.writestr(entry, content, ZIP_DEFLATED, compresslevel=9)


def files_from_disk(site: Path) -> dict[str, bytes]:
    """Return every file of the archive by its name, changed so that it works from a disk."""
    paths = {path.relative_to(site).as_posix(): path for path in site.rglob("*") if path.is_file()}
    files = {name: path.read_bytes() for name, path in paths.items() if not NOT_PACKED.match(name)}
    for name in files:
        if name.endswith(".html"):
            files[name] = page_from_disk(files[name].decode(), name).encode()
    modules = {name: files[name].decode() for name in sorted(files) if name.endswith(".mjs")}
    script = f"const modules = {json.dumps(modules, indent=0)};{IMPORT_FROM_DISK}"
    index = search_index(files["search/search_index.json"])
    return files | {
        "modules.js": script.encode(),
        "search/search_index.json": index,
        "search/search_index.js": b"var __index = " + index,
    }


def page_from_disk(html: str, name: str) -> str:
    """Return a page whose links, scripts and search work from a disk."""
    root = "../" * name.count("/")
    scripts = "".join(f'<script src="{root}{script}"></script>' for script in (SHIM, "modules.js"))
    html = ITSELF.sub(r"\1", PRELOAD.sub("", html))
    html = LINK.sub(lambda link: link[1] + with_index(link[2]), html)
    html = MODULE.sub(lambda tag: imported(normpath(join(dirname(name), tag[1]))), html)
    if 'id="__config"' not in html:
        return html  # a redirect or the page to print: they need no scripts
    # Under file:// the theme's instant navigation ends all its scripts before they begin.
    html = re.sub(r'"navigation\.instant",\s*', "", html, count=1)
    return html.replace("</head>", f"{scripts}</head>", 1)


def with_index(address: str) -> str:
    """Return the address of a page with the name of its file."""
    elsewhere = ":" in address or address.startswith("//")
    if elsewhere or address.rpartition("/")[2] not in ("", ".", ".."):
        return address
    return address.removesuffix("/") + "/index.html"


def imported(name: str) -> str:
    """Return the script that stands for a module's."""
    return f"<script>importFromDisk({json.dumps(name)})</script>"


def search_index(text: bytes) -> bytes:
    """Return the search index with the names of the files in it."""
    index = json.loads(text)
    for entry in index["docs"]:
        address, hash_sign, anchor = entry["location"].partition("#")
        entry["location"] = with_index(address or "./") + hash_sign + anchor
    return json.dumps(index, separators=(",", ":")).encode()
