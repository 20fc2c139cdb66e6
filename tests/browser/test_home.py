"""The first screen of the home page: what it shows, what moves on it, and the command to copy."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page

from tools.guard.pages import console_list

PLAYING = (
    "drawing => drawing.getAnimations({subtree: true}).filter(a => a.playState == '{}').length"
)


def playing(page: Page, state: str = "running") -> int:
    """How many animations of the recording are in a state; those that are over are not there."""
    count = page.locator(".terminal").evaluate(PLAYING.replace("{}", state))
    return int(count)


def end(page: Page) -> None:
    """Go to the end of the recording."""
    page.locator(".terminal").evaluate(
        "drawing => drawing.getAnimations({subtree: true}).forEach(a => a.finish())"
    )


def line(page: Page, text: str) -> Locator:
    """A line of the recording."""
    return page.locator(".terminal text", has_text=text).first


def in_sight(element: Locator) -> bool:
    """Whether an element is drawn, as the browser computes it."""
    return element.evaluate("element => getComputedStyle(element).visibility") == "visible"


def test_the_text_opens_beside_the_claim(visit: Callable[..., Page]) -> None:
    """On a wide screen nothing on the left moves when the text of the recording opens."""
    page = visit("")
    parts = [page.locator(part) for part in ("h1", ".curves", ".hero-start .highlight")]
    place = "part => part.getBoundingClientRect().y + scrollY"  # a click may scroll
    before = [part.evaluate(place) for part in parts]
    page.get_by_text("As text").click()
    assert page.locator("pre.recorded").is_visible()
    assert [part.evaluate(place) for part in parts] == before


WHOLE = ("h1", ".curves", ".terminal", ".hero-start .highlight")
PHONE = ("h1", ".curves", ".terminal .typed >> nth=0", ".terminal .bad")


@pytest.mark.parametrize(("width", "height", "parts"), [(1440, 900, WHOLE), (360, 740, PHONE)])
def test_one_screen_is_enough(
    visit: Callable[..., Page], width: int, height: int, parts: tuple[str, ...]
) -> None:
    """The first screen has the curves, the command with its answer, and how to install it.

    That of a phone has the curves, the command, and that it says *different*.
    """
    page = visit("", width=width, height=height, reduced_motion="reduce")
    for part in parts:
        box = page.locator(part).bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height, part


DOORS = {
    "does not repeat": ("guide/any_script/", "reproducibility twice"),
    "preempted": ("guide/interrupted/", "reproducibility interrupt"),
    "machines or versions": ("guide/any_script/", "reproducibility record"),
    "colleague": ("guide/recipes/", "reproducibility record"),
    "learn": ("fundamentals/reproducibility_basics/", "import jax"),
}


def test_each_door_leads_to_an_answer_that_can_be_copied(
    visit: Callable[..., Page], address: str
) -> None:
    """One click from the home page, a command or program for what the reader has can be copied."""
    page = visit("")
    doors = page.locator(".doors > ul > li")
    assert doors.count() == len(DOORS)
    for name, (path, command) in DOORS.items():
        page.goto(address)
        page.locator(".doors > ul > li", has_text=name).get_by_role("link").first.click()
        page.wait_for_url(f"**/{path}**")
        section = page.url.partition("#")[2] or "__comments"
        block = page.locator(".highlight:not(.output)", has_text=command)
        assert block.count(), name
        if section != "__comments":
            assert page.locator(f"[id='{section}']").count(), section
        block.first.hover()
        assert block.first.get_by_role("button").count(), name


def test_the_recording_can_be_paused_and_played_again(visit: Callable[..., Page]) -> None:
    """With the keyboard alone a reader stops what moves, lets it go on, and sees it again."""
    page = visit("")
    # A busy machine would miss the play: from here on a second of it takes minutes.
    devtools = page.context.new_cdp_session(page)
    devtools.send("Animation.enable")
    devtools.send("Animation.setPlaybackRate", {"playbackRate": 0.005})
    page.get_by_role("checkbox", name="Play again").focus()
    page.keyboard.press("Space")
    assert playing(page) > 10
    pause = page.get_by_role("checkbox", name="Pause")
    pause.focus()
    page.keyboard.press("Space")
    assert playing(page) == 0
    assert playing(page, "paused") > 10
    assert page.get_by_role("checkbox", name="Play again").count() == 0  # it would stand still
    page.keyboard.press("Space")
    assert playing(page) > 10
    end(page)
    assert playing(page) == 0
    assert in_sight(line(page, "All "))
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # Play again
    assert playing(page) > 10
    assert not in_sight(line(page, "All "))


def test_nothing_moves_for_who_wants_that(visit: Callable[..., Page]) -> None:
    """With reduced motion the recording is at its end, and there is nothing to pause."""
    page = visit("", reduced_motion="reduce")
    assert playing(page) == 0
    assert in_sight(line(page, "All "))
    assert not page.get_by_role("checkbox", name="Pause").is_visible()


def test_the_recording_is_there_as_text(visit: Callable[..., Page]) -> None:
    """A reader who does not see the drawing opens its text, and is told what it shows."""
    page = visit("", width=360)
    drawing = page.get_by_role("img", name="Terminal recording")
    assert "the order of a set" in str(drawing.locator("title").text_content())
    text = page.locator("pre.recorded")
    assert not text.is_visible()
    page.get_by_text("As text").click()
    assert "confirmed: with PYTHONHASHSEED=0" in text.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_command_is_copied_with_one_click(visit: Callable[..., Page]) -> None:
    """The button on the command copies it, to the letter, and nothing more."""
    page = visit("", permissions=["clipboard-read", "clipboard-write"])
    box = page.locator(".hero-start .highlight")
    shown = box.locator("code").inner_text()
    box.hover()
    box.get_by_role("button").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == shown.strip()
    [listed] = [block["text"] for block in console_list() if "twice" in block["text"]]
    commands = [text for text in listed.splitlines() if "REPO_" not in text]
    assert copied.strip().splitlines()[-len(commands) :] == commands
