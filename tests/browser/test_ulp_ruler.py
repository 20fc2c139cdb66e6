"""Promises of the ULP ruler: it counts as `distance` does, and says what NumPy says."""

import gzip
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from reproducibility import distance

PATH = "explorables/ulp_ruler/"
EXPLORABLES = Path(__file__).parents[2] / "docs" / "explorables"
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
SPECIAL = {  # zeros, subnormal numbers and their end, one, the largest, infinities, NaNs
    "float32": (
        *(0x0, 0x1, 0x2, 0x7FFFFF, 0x800000, 0x3F7FFFFF, 0x3F800000, 0x7F7FFFFF, 0x7F800000),
        *(0x7F800001, 0x7FC00000, 0x7FFFFFFF),
    ),
    "bfloat16": (0x0, 0x1, 0x7F, 0x80, 0x3F7F, 0x3F80, 0x7F7F, 0x7F80, 0x7F81, 0x7FC0, 0x7FFF),
}


def number(bits: int, dtype: str) -> Any:
    """Make the number with these bits."""
    kind = DTYPES[dtype]
    return np.array([bits], f"u{kind.itemsize}").view(kind)[0]


def is_nan(bits: int, dtype: str) -> bool:
    """Say whether these are the bits of a NaN."""
    return math.isnan(float(number(bits, dtype)))


def bits_of(value: Any, dtype: str) -> int:
    """Return the bits of a number."""
    return int(np.array([value], DTYPES[dtype]).view(f"u{DTYPES[dtype].itemsize}")[0])


def some_bits(dtype: str, count: int, seed: int) -> list[int]:
    """Return the special numbers of both signs, and random bits: most magnitudes among them."""
    width = 8 * DTYPES[dtype].itemsize
    special = [bits | sign << width - 1 for bits in SPECIAL[dtype] for sign in (0, 1)]
    return special + np.random.default_rng(seed).integers(0, 1 << width, count).tolist()


def pairs(dtype: str, seed: int) -> list[tuple[int, int]]:
    """Return every special number with every other, random pairs, and pairs near each other."""
    special = some_bits(dtype, 0, seed)
    one, other = some_bits(dtype, 200, seed), some_bits(dtype, 200, seed + 1)
    near = [(bits, bits ^ 1 << place % 5) for place, bits in enumerate(one)]
    return [(a, b) for a in special for b in special] + list(zip(one, other, strict=True)) + near


def ulp(a: int, b: int, dtype: str) -> int | None:
    """Return what the package says of the distance; None if there is none."""
    found = distance(number(a, dtype), number(b, dtype))
    return found.ulp if found.differing else 0


def close(a: int, b: int, dtype: str, rtol: float, atol: float) -> bool:
    """Return what NumPy says."""
    with np.errstate(all="ignore"):
        return bool(np.allclose(number(a, dtype), number(b, dtype), rtol=rtol, atol=atol))


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    """Open the ruler's own page."""
    return visit(PATH)


def ask(page: Page, expression: str, cases: Any) -> Any:
    """Evaluate an expression of `ulps` (the module) and `each` for each case, in the page."""
    return page.evaluate(
        f"""async (cases) => {{
            const ulps = await import(new URL("../ulps.mjs", location.href));
            return cases.map((each) => {expression});
        }}""",
        cases,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_are_those_of_the_package(page: Page, dtype: str) -> None:
    """Any two bit patterns are as far apart as `distance` says; with a bit changed they are not."""
    expression = f"ulps.apart(...each, '{dtype}')"
    cases = pairs(dtype, seed=6)
    expected = [ulp(a, b, dtype) for a, b in cases]
    found = [None if gap != gap else gap for gap in ask(page, expression, cases)]
    assert found == expected
    assert None in expected
    finite = [(a, b) for (a, b), gap in zip(cases, expected, strict=True) if gap is not None]
    altered = ask(page, expression, [(a ^ 1, b) for a, b in finite])
    assert all(gap != ulp(a, b, dtype) for gap, (a, b) in zip(altered, finite, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbours_are_those_of_numpy(page: Page, dtype: str) -> None:
    """One ULP up and down is where nextafter goes; between the zeros, too, there is a step."""
    cases = some_bits(dtype, 200, seed=7)
    for direction in (1, -1):
        toward = DTYPES[dtype].type(direction * np.inf)
        for bits, after in zip(
            cases, ask(page, f"ulps.nudge(each, {direction}, '{dtype}')", cases), strict=True
        ):
            if is_nan(bits, dtype):
                assert after == bits
            elif number(bits, dtype) == 0:
                crosses = np.signbit(number(bits, dtype)) == (direction > 0)
                assert (number(after, dtype) == 0) == crosses
                assert ulp(bits, after, dtype) == 1
            else:
                with np.errstate(all="ignore"):
                    assert after == bits_of(np.nextafter(number(bits, dtype), toward), dtype)


TOLERANCES = [(1e-5, 1e-8), (0, 0), (0.1, 0), (0, 1.5), (3e-7, 1e-30), (2.5, 1e38), (1e-2, 1e-40)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tolerance_is_that_of_numpy(page: Page, dtype: str) -> None:
    """For any two bit patterns and tolerances the answer is that of np.allclose."""
    cases = [
        (a, b, *TOLERANCES[place % len(TOLERANCES)])
        for place, (a, b) in enumerate(pairs(dtype, seed=8))
    ]
    expected = [close(a, b, dtype, rtol, atol) for a, b, rtol, atol in cases]
    state = f"{{ rtol: each[2], atol: each[3], dtype: '{dtype}' }}"
    assert ask(page, f"ulps.allclose(each[0], each[1], {state})", cases) == expected
    assert 100 < sum(expected) < len(expected) - 100


@pytest.mark.parametrize("dtype", DTYPES)
def test_how_many_numbers_a_tolerance_covers(page: Page, dtype: str) -> None:
    """np.allclose calls the last number that is counted equal to B, and the one after it not."""
    wide = [(rtol, 0) for rtol in np.random.default_rng(9).uniform(size=17).tolist()]
    tolerances = itertools.cycle([*TOLERANCES, *wide])
    cases = [(bits, *next(tolerances)) for bits in some_bits(dtype, 600, seed=9)]
    for direction in (1, -1):
        state = f"{{ rtol: each[1], atol: each[2], dtype: '{dtype}' }}"
        steps = ask(page, f"ulps.reach(each[0], {direction}, {state})", cases)
        ends = [[bits, direction * count] for (bits, *_), count in zip(cases, steps, strict=True)]
        lasts = ask(page, f"ulps.nudge(...each, '{dtype}')", ends)
        beyonds = ask(page, f"ulps.nudge(each, {direction}, '{dtype}')", lasts)
        found = zip(steps, lasts, beyonds, strict=True)
        for (bits, rtol, atol), (count, last, beyond) in zip(cases, found, strict=True):
            if is_nan(bits, dtype):
                assert count == 0
                continue
            assert ulp(bits, last, dtype) == count
            assert close(last, bits, dtype, rtol, atol)
            assert beyond == last or not close(beyond, bits, dtype, rtol, atol)


def test_text_is_read_as_numpy_reads_it(page: Page) -> None:
    """A decimal has the bits that NumPy gives it, and the decimal shown has those of its number."""
    random = np.random.default_rng(10)
    texts = ["0", "-0", "+.5", "5.", "1e-45", "7e-46", "3.4028235e38", "3.5e38", "1e999", "-inf"]
    texts += ["1.00000017881393432617187499", "16777217", "0.1", "1E-3", " 2 "]
    texts += [repr(float(m * 10.0**e)) for e, m in enumerate(random.normal(size=99), -49)]
    for dtype, kind in DTYPES.items():
        with np.errstate(over="ignore"):
            expected = [bits_of(kind.type(float(text)), dtype) for text in texts]
        assert ask(page, f"ulps.read(each, '{dtype}')", texts) == expected
        cases = [bits for bits in some_bits(dtype, 300, seed=11) if not is_nan(bits, dtype)]
        shown = ask(page, f"ulps.decimalOf(each, '{dtype}')", cases)
        assert ask(page, f"ulps.read(each, '{dtype}')", shown) == cases
        assert [bits_of(kind.type(float(text)), dtype) for text in shown] == cases
        assert ask(page, f"Number.isNaN(ulps.read(each, '{dtype}'))", ["nan"]) == [False]


class Ruler:
    """The element, by what a reader sees of it."""

    def __init__(self, root: Page | Locator, index: int = 0) -> None:
        self.root = root.locator("ulp-ruler").nth(index)

    def field(self, name: str) -> Locator:
        """Return the control that bears the name."""
        return self.root.locator(f":is(input, select)[name={name}]")

    def press(self, name: str) -> None:
        """Press a button by its name."""
        self.root.get_by_role("button", name=name, exact=True).click()

    def enter(self, name: str, text: str) -> None:
        """Type a text and finish with Enter."""
        self.field(name).fill(text)
        self.field(name).press("Enter")

    def answers(self) -> list[str]:
        """Return distance, np.allclose and whether the bits are the same."""
        return self.root.locator("dd").all_inner_texts()

    def said(self) -> str:
        """Return the sentence below them."""
        return self.root.get_by_role("status").locator("p").inner_text()

    def bits(self, side: str) -> int:
        """Return the bits, which the buttons and the digits show alike."""
        buttons = self.buttons(side).evaluate_all(
            "all => all.map((button) => [button.ariaPressed, button.textContent])"
        )
        pressed = "".join("01"[state == "true"] for state, _ in buttons)
        assert pressed == "".join(text for _, text in buttons)
        shown = self.root.locator(f"fieldset[name={side}] code").inner_text()
        assert shown == f"0x{int(pressed, 2):0{len(pressed) // 4}x}"
        return int(pressed, 2)

    def buttons(self, side: str) -> Locator:
        """Return the buttons of the bits, the sign first."""
        return self.root.get_by_role("group", name=f"Bits of {side}").get_by_role("button")

    def state(self) -> Any:
        """Return what an input that is refused must leave alone."""
        return self.answers(), self.bits("A"), self.bits("B"), self.root.locator("svg").inner_html()

    def covers(self) -> tuple[int, int]:
        """Return how many numbers the tolerance covers below and above B."""
        found = re.search(r"covers ([\d,]+) numbers? below and ([\d,]+) above", self.said())
        assert found, self.said()
        return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def words(a: int, b: int, dtype: str, rtol: float, atol: float) -> list[str]:
    """Return the three answers that the package and NumPy give."""
    gap = ulp(a, b, dtype)
    apart = "no distance" if gap is None else f"{gap:,} ULP"
    return [apart, str(close(a, b, dtype, rtol, atol)), str(a == b)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_typed_is_answered(page: Page, dtype: str) -> None:
    """Typed as bits or as decimals, two numbers get the answers of the package and of NumPy."""
    ruler = Ruler(page)
    ruler.field("dtype").select_option(dtype)
    chosen = [*some_bits(dtype, 8, seed=12)[-8:], *SPECIAL[dtype][::3]]
    for place, (a, b) in enumerate(zip(chosen, [*chosen[1:], chosen[-1]], strict=True)):
        rtol, atol = TOLERANCES[place % len(TOLERANCES)]
        ruler.enter("A", f"0x{a:0{DTYPES[dtype].itemsize * 2}x}")
        typed = repr(float(number(b, dtype)))
        ruler.enter("B", typed)
        ruler.enter("rtol", repr(rtol))
        ruler.enter("atol", repr(atol))
        assert ruler.bits("A") == a
        if typed != "nan":
            assert ruler.bits("B") == b
        assert ruler.answers() == words(a, ruler.bits("B"), dtype, rtol, atol)


def test_every_bit_turns_over(page: Page) -> None:
    """A press on a bit changes it and no other, in both rows; the answers follow."""
    ruler = Ruler(page)
    for side in "AB":
        before = ruler.bits(side)
        for place, button in enumerate(ruler.buttons(side).all()):
            button.click()
            before ^= 1 << 31 - place
            assert ruler.bits(side) == before
        a, b = ruler.bits("A"), ruler.bits("B")
        assert ruler.answers() == words(a, b, "float32", 1e-5, 1e-8)


def test_bits_that_differ_are_marked(page: Page) -> None:
    """In both rows, exactly the bits that are not those of the other number are marked."""
    ruler = Ruler(page)
    differing = ruler.bits("A") ^ ruler.bits("B")
    for side in "AB":
        marked = ruler.buttons(side).evaluate_all(
            "all => all.map((button) => button.classList.contains('differs'))"
        )
        assert marked == [bool(differing >> 31 - place & 1) for place in range(32)]
    assert f"{differing.bit_count()} of 32 bits differ" in ruler.said()


def test_another_dtype_rounds_both(page: Page) -> None:
    """Choosing bfloat16 rounds A and B as ml_dtypes does, and going back changes nothing more."""
    ruler = Ruler(page)
    for a, b in (("503.05457", "0.1"), ("3.3961775e38", "-1.0039062"), ("1e-40", "-inf")):
        ruler.enter("A", a)
        ruler.enter("B", b)
        with np.errstate(over="ignore"):
            expected = [ml_dtypes.bfloat16(np.float32(text)) for text in (a, b)]
        ruler.field("dtype").select_option("bfloat16")
        assert [ruler.bits("A"), ruler.bits("B")] == [bits_of(x, "bfloat16") for x in expected]
        assert ruler.root.locator("[name=bit]").count() == 32
        ruler.field("dtype").select_option("float32")
        assert [ruler.bits("A"), ruler.bits("B")] == [bits_of(x, "float32") for x in expected]


def test_without_a_mouse(page: Page) -> None:
    """Tab reaches each row of bits once; arrows, Home, End and space work there; focus stays."""
    ruler = Ruler(page)
    for name in ("A", "B", "dtype", "rtol", "atol"):
        expect(ruler.field(name)).to_have_accessible_name(name)
    ruler.field("A").focus()
    page.keyboard.press("ArrowUp")
    assert ruler.answers()[0] == "6 ULP"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # A minus 1 ULP
    assert ruler.answers()[0] == "4 ULP"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # A plus 1 ULP
    assert ruler.answers()[0] == "5 ULP"
    page.keyboard.press("Tab")
    bits = ruler.bits("A")
    for key, place in (("ArrowRight", 30), ("End", 0), ("ArrowLeft", 1), ("Home", 31)):
        page.keyboard.press(key)
        focused = page.locator(":focus")
        expect(focused).to_have_attribute("value", str(place))
        page.keyboard.press("Space")
        bits ^= 1 << place
        assert ruler.bits("A") == bits
        expect(focused).to_be_focused()
    page.keyboard.press("ArrowLeft")  # nothing stands before the sign
    sign = page.locator(":focus")
    expect(sign).to_have_accessible_name(f"A sign, bit 31: {sign.inner_text()}")
    page.keyboard.press("Tab")
    expect(ruler.field("B")).to_be_focused()


def test_no_number(page: Page) -> None:
    """What is no number changes nothing; a sentence says what is one, and the next one works."""
    ruler = Ruler(page)
    before = ruler.state()
    for text in ("", "  ", "abc", "1,5", "1e", "--1", "0x12", "0x1234567890", "1_0"):
        ruler.enter("A", text)
        assert ruler.field("A").get_attribute("aria-invalid") == "true"
        assert ruler.said() == (
            "A takes a number such as 0.1 or -2e-3, inf, nan, or 0x and the 8 digits of its bits."
        )
        assert ruler.state() == before
        ruler.enter("A", "503.05457")
        assert ruler.field("A").get_attribute("aria-invalid") is None
        assert "bits differ" in ruler.said()


@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_no_tolerance(page: Page, name: str) -> None:
    """What is no tolerance changes nothing; a sentence says what is one, and the next one works."""
    ruler = Ruler(page)
    before = ruler.state()
    usual = ruler.field(name).input_value()
    for text in ("", "abc", "-1", "inf", "1e999", "nan", "1,5"):
        ruler.enter(name, text)
        assert ruler.field(name).get_attribute("aria-invalid") == "true"
        assert ruler.said() == f"{name} takes a number from 0 up, such as 1e-5."
        expect(ruler.field(name)).to_have_accessible_description("from 0 up")
        field, note = ruler.field(name).bounding_box(), ruler.root.locator(".wrong").bounding_box()
        assert 0 < note["x"] - field["x"] - field["width"] < 40
        assert abs(note["y"] + note["height"] / 2 - field["y"] - field["height"] / 2) < 4
        assert ruler.state() == before
        ruler.enter(name, usual)
        assert ruler.field(name).get_attribute("aria-invalid") is None
        assert ruler.root.locator(".wrong").count() == 0
        assert "bits differ" in ruler.said()


def test_what_the_page_says_to_try(page: Page) -> None:
    """Each thing to try shows what the page says of it."""
    ruler = Ruler(page)
    assert ruler.answers() == ["5 ULP", "True", "False"]
    ruler.enter("rtol", "1e-6")
    assert (ruler.covers(), ruler.answers()[1]) == ((16, 16), "True")
    ruler.enter("rtol", "1e-7")
    assert (ruler.covers(), ruler.answers()[1]) == ((1, 1), "False")

    ruler.press("On both sides of 1")
    assert ruler.answers()[0] == "3 ULP"
    assert "24 of 32 bits differ" in ruler.said()
    assert ruler.covers() == (167, 84)

    ruler.press("Near zero")
    assert ruler.answers()[:2] == ["1,628,627,135 ULP", "True"]
    ruler.enter("atol", "0")
    assert ruler.answers()[1] == "False"

    ruler.press("The largest")
    assert ruler.answers() == ["1 ULP", "False", "False"]
    assert ruler.covers()[1] == 0
    ruler.press("A plus 1 ULP")
    assert ruler.answers()[0] == "1 ULP"

    ruler.press("One sum, two orders")
    ruler.field("dtype").select_option("bfloat16")
    assert [ruler.field(side).input_value() for side in "AB"] == ["504", "504"]
    assert ruler.answers() == ["0 ULP", "True", "True"]
    ruler.press("A plus 1 ULP")
    assert ruler.field("A").input_value() == "506"
    assert ruler.answers()[1] == "False"

    ruler.press("One sum, two orders")
    for name, text in {"A": "1", "B": "1.1", "rtol": "0.1"}.items():
        ruler.enter(name, text)
    assert ruler.answers()[1] == "True"
    ruler.enter("A", "1.1")
    ruler.enter("B", "1")
    assert ruler.answers()[1] == "False"


def test_a_step_or_number_without_room_is_said(page: Page) -> None:
    """Where a step leads nowhere or a decimal is too large, a sentence says so, and only then."""
    ruler = Ruler(page)
    for side, text, direction, key in (
        ("A", "inf", "plus", "ArrowUp"),
        ("B", "-inf", "minus", "ArrowDown"),
    ):
        ruler.enter(side, text)
        assert ruler.said().startswith("A = ")
        ruler.press(f"{side} {direction} 1 ULP")
        assert ruler.said().startswith(f"Nothing lies beyond {text}. A = ")
        ruler.enter(side, "1")
        ruler.enter(side, text)
        ruler.field(side).press(key)
        assert ruler.said().startswith(f"Nothing lies beyond {text}. A = ")
    ruler.press("A minus 1 ULP")
    assert ruler.said().startswith("A = ")
    for text, end in (("1e50", "inf"), ("-1E999", "-inf")):
        ruler.enter("A", text)
        assert ruler.said().startswith(f"Rounded to {end}. A = {end}")
    for text in ("inf", "-INF", "0x7f800000", "1e38"):
        ruler.enter("A", text)
        assert ruler.said().startswith("A = ")


def test_numbers_are_written_to_be_read(page: Page) -> None:
    """Below 1e-3 a number has an exponent; one number is not called numbers; 11 pixels at least."""
    ruler = Ruler(page)
    assert [ruler.field(name).input_value() for name in ("rtol", "atol")] == ["1e-5", "1e-8"]
    assert "1 ULP is 3.0517578e-5," in ruler.said()
    for text, shown in (
        ("0.0001", "1e-4"),
        ("-0.00025", "-2.5e-4"),
        ("1e-3", "0.001"),
        ("-0", "-0"),
    ):
        ruler.enter("A", text)
        assert ruler.field("A").input_value() == shown
    ruler.press("One sum, two orders")
    ruler.enter("rtol", "1e-7")
    assert "covers 1 number below and 1 above." in ruler.said()
    for part in ruler.root.locator("sup, tspan").all():
        assert float(part.evaluate("it => getComputedStyle(it).fontSize").rstrip("px")) >= 11


def across(element: Locator, name: str = "x1") -> float:
    """Return where an element of the drawing stands, in percent of its width."""
    return float(element.get_attribute(name).rstrip("%"))


def near_ticks(ruler: Ruler) -> list[float]:
    """Return where the ticks of the first stretch stand."""
    lines = ruler.root.locator("svg > line[y2='50']").all()
    return sorted({x for x in map(across, lines) if 0 < x < 100})


def test_the_drawing(page: Page) -> None:
    """Five steps lie between A and B, past 1 a step is twice as long, the bar is the tolerance."""
    ruler = Ruler(page)
    marks = ruler.root.locator("svg .mark line")
    ticks = [across(tick) for tick in ruler.root.locator("svg > line[y1='42']").all()]
    left, right = across(marks.nth(0)), across(marks.nth(1))
    assert sum(left < tick <= right for tick in ticks) == 5

    below, above = ruler.covers()
    bar = ruler.root.locator("svg rect").nth(1)
    a, b = across(marks.nth(3)), across(marks.nth(2))  # B, the lesser, comes first
    step = (a - b) / 5
    assert across(bar, "x") == pytest.approx(b - below * step, abs=0.4)
    assert across(bar, "width") == pytest.approx((below + above) * step, abs=0.8)

    ruler.press("On both sides of 1")
    ticks = near_ticks(ruler)
    gaps = np.diff(ticks)
    assert gaps[-1] == pytest.approx(2 * gaps[0], abs=0.05)
    ruler.enter("A", "-1.0000001")
    ruler.enter("B", "-0.9999999")
    assert near_ticks(ruler) == pytest.approx([100 - tick for tick in reversed(ticks)], abs=0.05)


def test_near_zero_the_drawing_and_its_caption_can_be_read(page: Page) -> None:
    """Zero has its name, no name touches another, no ticks run together; the caption follows."""
    ruler = Ruler(page)
    caption = page.locator("figure.explorable figcaption")
    usual = caption.inner_text()
    assert usual.startswith("Two float32 sums of the same 1,000 numbers")
    page.set_viewport_size({"width": 360, "height": 900})
    ruler.press("Near zero")
    expect(caption).to_have_text(
        "1e-9 and -1e-9 in float32. np.allclose calls them equal; "
        "on the line of numbers they are 1,628,627,135 ULP apart."
    )
    assert np.diff(near_ticks(ruler)).min() > 0.3
    names = ruler.root.locator("svg > text").filter(has_text=re.compile(r"^(0|\u2212?2\d*-?\d+)$"))
    assert names.all_text_contents().count("0") == 2
    boxes = [(round(it["y"]), it["x"], it["x"] + it["width"]) for it in map(box_of, names.all())]
    for one, other in itertools.pairwise(sorted(boxes)):
        assert one[0] != other[0] or one[2] < other[1], names.all_text_contents()
    ruler.press("One sum, two orders")
    expect(caption).to_have_text(usual)


def box_of(element: Locator) -> Any:
    """Return where an element is on the screen."""
    return element.bounding_box()


def test_every_pair_can_be_drawn(page: Page) -> None:
    """No two numbers make a drawing without a place; NaN is told in words."""
    ruler = Ruler(page)
    for dtype in DTYPES:
        ruler.press("One sum, two orders")
        ruler.field("dtype").select_option(dtype)
        digits = DTYPES[dtype].itemsize * 2
        for a, b in zip(some_bits(dtype, 12, 13), some_bits(dtype, 12, 14)[::-1], strict=True):
            ruler.enter("A", f"0x{a:0{digits}x}")
            ruler.enter("B", f"0x{b:0{digits}x}")
            drawn = ruler.root.locator("svg").inner_html()
            both = is_nan(a, dtype) and is_nan(b, dtype)
            assert ("NaN has no place" in drawn) == both
            assert not re.search(r'"(NaN|undefined|-?Infinity)', drawn), (a, b)
            assert drawn.count("<line") < 200


def drawing(ruler: Ruler) -> Any:
    """Return each element of the drawing with its attributes and, of a text, its words."""
    return ruler.root.locator("svg *").evaluate_all(
        """all => all.map((each) => [
            each.tagName,
            Object.fromEntries([...each.attributes].map(({ name, value }) => [name, value])),
            each.tagName === "text" ? each.textContent : "",
        ])"""
    )


def test_the_fallback_is_the_default_state(page: Page, visit: Callable[..., Page]) -> None:
    """Without scripts a reader sees the same numbers and the same drawing, and no dead button."""
    ruler, still = Ruler(page), Ruler(visit(PATH, java_script_enabled=False))
    assert still.root.locator("button, input").count() == 0
    assert still.answers() == ruler.answers()
    assert still.root.locator("p").nth(2).inner_text() == ruler.said()
    assert drawing(still) == drawing(ruler)
    assert len(drawing(still)) > 50
    for side, line in zip("AB", still.root.locator("p").all(), strict=False):
        bits = ruler.bits(side)
        apart = f"{bits >> 31:b} {bits >> 23 & 255:08b} {bits & (1 << 23) - 1:023b}"
        value = ruler.field(side).input_value()
        assert " ".join(line.inner_text().split()) == f"{side} {value} 0x{bits:08x} {apart}"
    expect(still.root.locator("svg")).to_be_visible()


def test_the_chapter_shows_it_too(visit: Callable[..., Page]) -> None:
    """The ruler works in the chapter that explains what a ULP is."""
    ruler = Ruler(visit("guide/flight_recorder/"))
    ruler.press("B minus 1 ULP")
    assert ruler.answers()[0] == "6 ULP"


def test_two_on_one_page(page: Page) -> None:
    """Two rulers are apart from each other; one that is moved starts again, one step a press."""
    page.evaluate(
        "document.querySelector('figure.explorable').after(document.createElement('ulp-ruler'))"
    )
    one, other = Ruler(page), Ruler(page, 1)
    one.press("A plus 1 ULP")
    assert (one.answers()[0], other.answers()[0]) == ("6 ULP", "5 ULP")
    page.evaluate("document.querySelector('article').append(document.querySelector('ulp-ruler'))")
    moved = Ruler(page, 1)
    moved.press("A plus 1 ULP")
    assert moved.answers()[0] == "6 ULP"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_room_for_fingers(visit: Callable[..., Page], width: int, scheme: str) -> None:
    """Each control is at least 24 pixels wide and high, nothing scrolls sideways, nothing moves."""
    page = visit(PATH, width=width, color_scheme=scheme, reduced_motion="reduce")
    ruler = Ruler(page)
    ruler.press("Near zero")
    for control in ruler.root.locator("button, input, select").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 24
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelector('ulp-ruler').getAnimations({subtree: true})") == []


def test_it_is_small() -> None:
    """No script is over 9,000 bytes, all together are 9 KiB compressed, the styles 3,000 bytes."""
    names = ("ulp-ruler", "ulp-line", "ulps", "floats", "words")
    scripts = [EXPLORABLES / f"{name}.mjs" for name in names]
    assert all(len(script.read_bytes()) <= 9000 for script in scripts)
    assert sum(len(gzip.compress(script.read_bytes())) for script in scripts) <= 9 * 1024
    assert len((EXPLORABLES / "ulp-ruler.css").read_bytes()) <= 3000


@pytest.mark.parametrize("text", ["inf", "nan"])
def test_what_is_not_finite_has_no_spacing(page: Page, text: str) -> None:
    """Beside infinity or NaN no ULP has a size, and none is named."""
    ruler = Ruler(page)
    assert "At B, 1 ULP is" in ruler.said()
    ruler.enter("B", text)
    assert f"B = {text}" in ruler.said()
    assert "At B" not in ruler.said()
