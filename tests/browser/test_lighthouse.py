"""Lighthouse's verdict on the home page, a chapter and a lab, on the slow phone that it assumes.

Performance depends on how busy the machine is, so that no test can demand a score: `python -m
tests.browser.test_lighthouse` prints all four. What makes a page fast is tested by itself: bytes,
the number of files that hold up the first picture, and that nothing moves while a page loads.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.serving import chromium, served
from tests.building import built_site

HERE = Path(__file__).parent
LIGHTHOUSE = HERE / "node_modules" / ".bin" / "lighthouse"
PAGES = ("", "fundamentals/jax_prng_tutorial/", "labs/one_ulp/")
CATEGORIES = ("accessibility", "best-practices", "seo")


def audit(url: str, *options: str) -> dict[str, Any]:
    """Run Lighthouse on an address."""
    done = subprocess.run(
        [
            *(str(LIGHTHOUSE), url, "--quiet", "--output=json", "--output-path=stdout", *options),
            "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
        ],
        env=os.environ | {"CHROME_PATH": chromium()},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def scores(report: dict[str, Any]) -> dict[str, int]:
    """The categories of a report, from 0 to 100."""
    return {name: round(100 * it["score"]) for name, it in report["categories"].items()}


@pytest.mark.parametrize("path", PAGES)
def test_lighthouse_finds_little(address: str, path: str) -> None:
    """Accessibility, best practices and search engines: at least 95 of 100."""
    report = audit(address + path, f"--only-categories={','.join(CATEGORIES)}")
    found = scores(report)
    failed = {
        name: it["title"] for name, it in report["audits"].items() if it["score"] not in (None, 1)
    }
    assert set(found) == set(CATEGORIES)
    assert min(found.values()) >= 95, failed


@pytest.mark.parametrize("path", PAGES)
def test_nothing_moves_and_little_holds_up_a_page(visit: Callable[..., Page], path: str) -> None:
    """The first picture waits for one style sheet and no script, and stays where it is."""
    page = visit(path, width=412, height=823)
    page.wait_for_load_state("networkidle")
    waits = "() => performance.getEntriesByType('resource')"
    waits += ".filter((it) => it.renderBlockingStatus === 'blocking').map((it) => it.name)"
    assert [name.rpartition("/")[2] for name in page.evaluate(waits)] == ["all.css"]
    shift = """() => new Promise((resolve) => new PerformanceObserver((list) => resolve(
        list.getEntries().reduce((sum, it) => sum + it.value, 0)))
        .observe({type: "layout-shift", buffered: true}) || setTimeout(() => resolve(0), 500))"""
    assert page.evaluate(shift) < 0.05


if __name__ == "__main__":
    with served(built_site()) as url:
        for device, options in {"phone": [], "desktop": ["--preset=desktop"]}.items():
            for path in PAGES:
                print(f"{device:8} {path or 'home':34} {scores(audit(url + path, *options))}")
