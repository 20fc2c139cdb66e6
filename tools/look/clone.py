"""Say how to get a clone, where the repository's address is known."""

from __future__ import annotations


def with_address(text: str, repo_url: str) -> str:
    """Put the address into the commands that clone the repository; without one, leave them out."""
    if not repo_url:
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if "REPO_URL" not in line and "REPO_NAME" not in line)
    name = repo_url.rstrip("/").removesuffix(".git").rpartition("/")[2]
    return text.replace("REPO_URL", repo_url).replace("REPO_NAME", name)
