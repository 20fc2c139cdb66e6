"""The order of a sum: every number it shows is NumPy's and JAX's, however it is operated."""

import gzip
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from reproducibility import distance

SOURCES = Path(__file__).parents[2] / "docs" / "explorables"
PAGE = "explorables/sum_order/"
NUMBERS = ["0.3", "0.5", "0.1", "0.8", "0.6", "0.9", "0.2", "0.4"]
LABELS = ("Left to right", "Right to left", "Pairwise", "Devices")
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
SEEDS = (0, 1, 2)
MINUS = "\N{MINUS SIGN}"

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy warns of inf and NaN

Visit = Callable[..., Page]


# What the explorable should say, from NumPy and JAX. A term is one number, or an array of the
# terms that have this place in many sums.


def chain(terms: Iterable[Any]) -> Any:
    """Add from left to right."""
    total, *others = terms
    for term in others:
        total = total + term
    return total


def pairwise(terms: list[Any]) -> Any:
    """Add neighbours, then the neighbouring sums, until one is left."""
    while len(terms) > 1:
        terms = [chain(terms[i : i + 2]) for i in range(0, len(terms), 2)]
    return terms[0]


def add(terms: list[Any], order: str, devices: int) -> Any:
    """Add in one of the orders of the explorable."""
    if order == "forward":
        return chain(terms)
    if order == "backward":
        return chain(terms[::-1])
    if order == "pairwise":
        return pairwise(terms)
    parts = np.array_split(np.arange(len(terms)), devices)
    return pairwise([chain(terms[place] for place in part) for part in parts])


ORDERS = [("forward", 0), ("backward", 0), ("pairwise", 0), *(("devices", n) for n in range(2, 9))]


def bits(array: Any) -> np.ndarray:
    """The bits of floats; every NaN counts as the same one."""
    array = np.asarray(array)
    array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return array.view(f"u{array.dtype.itemsize}")


def rounded(exact: Fraction, dtype: Any) -> Any:
    """The number of the dtype that is nearest to a fraction, the even one of two."""
    largest = dtype(ml_dtypes.finfo(dtype).max)
    guess = dtype(float(max(-largest, min(largest, exact))))
    near = [guess, np.nextafter(guess, -largest), np.nextafter(guess, largest)]
    best = min(near, key=lambda x: (abs(Fraction(float(x)) - exact), int(bits(x)) % 2))
    step = Fraction(float(largest)) - Fraction(float(np.nextafter(largest, dtype(0))))
    beyond = abs(exact) >= Fraction(float(largest)) + step / 2
    return dtype(np.copysign(np.inf, best)) if beyond else best


def signed(steps: int) -> str:
    """A distance as the explorable writes it."""
    return f"{steps:+,}".replace("-", MINUS) if steps else "0"


def draws(seed: int, dtype: str, count: int) -> np.ndarray:
    """Rows of eight numbers: near, far, cancelling, subnormal, any bits at all, and special."""
    random = np.random.default_rng(seed)
    shape = (count, 8)
    near = random.normal(size=shape)
    far = near * 2.0 ** random.integers(-40, 40, shape)
    cancelling = np.concatenate([near[:, :4] * 1e6, -near[:, 3::-1] * 1e6 + far[:, :4]], axis=1)
    tiny = random.normal(size=shape) * 1e-38
    kinds = [
        np.asarray(kind, np.float32).astype(DTYPES[dtype]) for kind in (near, far, cancelling, tiny)
    ]
    width = kinds[0].itemsize
    anything = random.integers(0, 2 ** (8 * width), shape, f"u{width}").view(DTYPES[dtype])
    special = np.asarray([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, 3e38, -3e38], np.float32)
    mixed = random.choice(special.astype(DTYPES[dtype]), shape)
    return np.concatenate([*kinds, anything, mixed])


# What it says.


def totals(page: Page, rows: np.ndarray, dtype: str, order: str, devices: int) -> np.ndarray:
    """The bits of the sums of the rows, from the module."""
    found = page.evaluate(
        """async ([rows, dtype, order, devices]) => {
          const floats = await import(new URL("../floats.mjs", location));
          const { trees, total } = await import(new URL("../sum-order-trees.mjs", location));
          const tree = trees[order](8, devices);
          return rows.map((row) => {
            const sum = total(tree, row.map((bits) => floats.valueOf(bits, dtype)), dtype);
            return Number.isNaN(sum) ? null : floats.bitsOf(sum, dtype);
          });
        }""",
        [rows.view(f"u{rows.itemsize}").tolist(), dtype, order, devices],
    )
    nan = int(bits(np.array(np.nan, rows.dtype)))
    return np.array([nan if word is None else word for word in found], f"u{rows.itemsize}")


def call(page: Page, function: str, *arguments: Any) -> Any:
    """Call a function of floats.mjs for each of many arguments."""
    return page.evaluate(
        """async ([name, calls]) => {
          const floats = await import(new URL("../floats.mjs", location));
          return calls.map((call) => floats[name](...call) ?? "nothing");
        }""",
        [function, list(zip(*arguments, strict=True))],
    )


def shown(explorable: Locator) -> list[list[str]]:
    """The table: of each order the sum, its bits and its distance."""
    return explorable.locator("tbody tr").evaluate_all(
        """rows => rows.map((row) => [row.querySelector("b").textContent,
          row.querySelector("code").textContent, row.cells[2].textContent])"""
    )


def expected(texts: list[str], dtype: str, devices: int = 2) -> list[list[str]]:
    """The table as NumPy has it."""
    terms = list(np.array([float(text) for text in texts], np.float32).astype(DTYPES[dtype]))
    exact = rounded(sum(Fraction(float(term)) for term in terms), DTYPES[dtype])
    orders = ("forward", "backward", "pairwise", "devices")
    sums = [*(add(terms, order, devices) for order in orders), exact]
    return [
        [
            f"0x{int(bits(total)):0{2 * total.itemsize}x}",
            signed((1 if total > exact else -1) * (distance(exact, total).ulp or 0)),
        ]
        for total in sums
    ]


@pytest.fixture
def page(visit: Visit) -> Page:
    """The page of the explorable."""
    return visit(PAGE)


def explorable(page: Page) -> Locator:
    """The explorable, once it works."""
    found = page.locator("sum-order").first
    expect(found.get_by_role("status")).to_contain_text("different sums")
    return found


def type_number(inside: Locator, place: int, text: str) -> None:
    """Type a number, and leave the field with Enter."""
    field = inside.get_by_label(f"Number {place}", exact=True)
    field.fill(text)
    field.press("Enter")


def numbers(inside: Locator) -> list[str]:
    """What stands in the fields."""
    return inside.locator("ol input").evaluate_all("inputs => inputs.map((input) => input.value)")


def distances(inside: Locator) -> list[str]:
    """The last column of the four orders."""
    return [row[2] for row in shown(inside)[:4]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_numpys(page: Page, dtype: str) -> None:
    """Every sum has NumPy's bits, in each order, with subnormal numbers, inf and NaN."""
    for seed in SEEDS:
        rows = draws(seed, dtype, 30)
        for order, devices in ORDERS:
            right = bits(add(list(rows.T), order, devices))
            assert np.array_equal(totals(page, rows, dtype, order, devices), right), (
                order,
                devices,
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_jaxs(page: Page, dtype: str) -> None:
    """Every sum has the bits of JAX's additions, one by one, where nothing can be subnormal."""
    rows = np.concatenate([draws(seed, dtype, 30) for seed in SEEDS])
    rows = rows[~((rows != 0) & (np.abs(rows.astype(np.float64)) < 2.0**-100)).any(axis=1)]
    assert len(rows) > 300
    for order, devices in ORDERS:
        right = bits(add([jnp.asarray(column) for column in rows.T], order, devices))
        assert np.array_equal(totals(page, rows, dtype, order, devices), right), (order, devices)


def test_jax_takes_subnormal_numbers_for_zero() -> None:
    """The page is right in what it says of JAX on CPU: 1e-40 and 2e-40 make 0."""
    assert jnp.float32(1e-40) + jnp.float32(2e-40) == 0 != np.float32(1e-40) + np.float32(2e-40)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bit_is_seen(page: Page, dtype: str) -> None:
    """The comparison fails in the one row of which one number has one other bit."""
    rows = draws(0, dtype, 30)
    right = bits(pairwise(list(rows.T)))
    rows.view(f"u{rows.itemsize}")[7, 3] ^= 1 << (8 * rows.itemsize - 9)  # the exponent's last
    assert (totals(page, rows, dtype, "pairwise", 0) != right).nonzero()[0].tolist() == [7]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_exact_sum_is_rounded_once(page: Page, dtype: str) -> None:
    """The last row is the number of the dtype that is nearest to the sum of fractions."""
    rows = np.concatenate([draws(seed, dtype, 30) for seed in SEEDS])
    rows = rows[np.isfinite(rows.astype(np.float32)).all(axis=1)]
    found = call(page, "roundedSum", rows.astype(np.float64).tolist(), [dtype] * len(rows))
    exact = [sum(Fraction(float(term)) for term in row) for row in rows]
    right = np.array([rounded(total, DTYPES[dtype]) for total in exact])
    assert np.array_equal(bits(np.array(found, np.float32).astype(DTYPES[dtype])), bits(right))


@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_are_the_packages(page: Page, dtype: str) -> None:
    """A distance is what reproducibility.distance counts, with the sign of the way."""
    a, b = draws(3, dtype, 30)[:, :2].T
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    words = [
        call(page, "valueOf", x.view(f"u{x.itemsize}").tolist(), [dtype] * len(x)) for x in (a, b)
    ]
    found = call(page, "ulps", *words, [dtype] * len(a))
    assert np.abs(found).tolist() == [distance(x, y).ulp or 0 for x, y in zip(a, b, strict=True)]
    assert all((steps > 0) == (y > x) for steps, x, y in zip(found, a, b, strict=True) if x != y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_decimals_read_back(page: Page, dtype: str) -> None:
    """A decimal is the shortest that reads back as the same number."""
    values = draws(4, dtype, 30).ravel()
    values = values[np.isfinite(values.astype(np.float32))]
    texts = call(page, "decimal", values.astype(np.float64).tolist(), [dtype] * len(values))
    read = np.array([float(text) for text in texts], np.float32).astype(DTYPES[dtype])
    assert np.array_equal(bits(read), bits(values))
    digits = [len(re.sub(r"e.*|\D", "", text).strip("0")) for text in texts]
    shorter = [
        np.float32(f"{float(value):.{count - 2}e}").astype(DTYPES[dtype]) == value
        for value, count in zip(values, digits, strict=True)
        if count > 1
    ]
    assert len(shorter) > 1000
    assert not any(shorter)


def test_texts_are_read_as_numpy_reads_them(page: Page) -> None:
    """What may be typed means what it means to NumPy, and nothing else is taken for a number."""
    good = [
        "1",
        "-2",
        "+3",
        " 0.25 ",
        "1e8",
        "1E-3",
        ".5",
        "5.",
        "-0",
        "inf",
        "-inf",
        "1e-50",
        "3.4e38",
    ]
    found = call(page, "parse", good, ["float32"] * len(good))
    assert np.array_equal(bits(np.float32(found)), bits(np.float32([float(text) for text in good])))
    bad = [
        "",
        " ",
        "abc",
        "1/3",
        "0,1",
        "0x10",
        "1e39",
        "-1e39",
        "1e999",
        "--1",
        "1 2",
        "Infinity",
        "toString",
    ]
    assert call(page, "parse", bad, ["float32"] * len(bad)) == ["nothing"] * len(bad)
    assert call(page, "parse", ["3.4e38"], ["bfloat16"]) == ["nothing"]
    assert np.isnan(call(page, "parse", ["nan"], ["float32"])).all()


def test_random_orders_are_jaxs(page: Page) -> None:
    """The shuffles are jax.random.permutation of a folded key."""
    found = page.evaluate(
        """async () => {
          const { shuffle } = await import(new URL("../sum-order-trees.mjs", location));
          return [0, 1, 2, 999, 4_000_000_000].map((number) => shuffle(number, 64));
        }"""
    )
    key = jax.random.key(0)
    for number, order in zip((0, 1, 2, 999, 4_000_000_000), found, strict=True):
        folded = jax.random.fold_in(key, np.uint32(number))
        assert order == jax.random.permutation(folded, 64).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_histograms_are_numpys(page: Page, dtype: str) -> None:
    """Each bar counts the sums that NumPy has at this distance, and no sum lies outside."""
    found = page.evaluate(
        """async ([orders, dtype]) => {
          const { histogram } = await import(new URL("../sum-order-trees.mjs", location));
          return orders.map(([order, devices]) => histogram(order, devices, dtype));
        }""",
        [ORDERS, dtype],
    )
    key = jax.random.key(0)
    places = jax.vmap(lambda i: jax.random.permutation(jax.random.fold_in(key, i), 64))
    terms = (1 / np.arange(1, 65)).astype(np.float32).astype(DTYPES[dtype])
    columns = list(terms[np.asarray(places(jnp.arange(1000)))].T)
    exact = rounded(sum(Fraction(float(term)) for term in terms), DTYPES[dtype])
    for (order, devices), counts in zip(ORDERS, found, strict=True):
        away = bits(add(columns, order, devices)).astype(int) - int(bits(exact))
        assert counts == [int((away == steps).sum()) for steps in range(-6, 7)]
        assert sum(counts) == 1000


def bars(inside: Locator) -> list[tuple[str, str, float]]:
    """Of each bar of the histogram, where it stands, what is written on it, and its height."""
    svg = inside.locator("svg").last
    texts = svg.locator("text").all_text_contents()
    heights = svg.locator("rect").evaluate_all(
        "all => all.map((bar) => +bar.getAttribute('height'))"
    )
    return list(zip(texts[1::2], texts[::2], heights, strict=True))


def test_histogram_fills_its_room(page: Page) -> None:
    """The highest bar has 100 pixels, the others their share; 3 ULP are drawn, or to the last."""
    inside = explorable(page)
    for dtype, label, far in (
        ("float32", "Left to right", 3),
        ("float32", "Pairwise", 3),
        ("float32", "Right to left", 4),
        ("bfloat16", "Left to right", 6),
    ):
        inside.get_by_label("dtype").select_option(dtype)
        inside.get_by_label(label, exact=True).check()
        found = bars(inside)
        assert [place for place, _, _ in found] == [signed(steps) for steps in range(-far, far + 1)]
        counts = np.array([int(count or 0) for _, count, _ in found])
        assert counts.sum() == 1000
        heights = [height for _, _, height in found]
        assert np.allclose(heights, 100 * counts / counts.max(), atol=0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_typed_numbers_are_added(page: Page, dtype: str) -> None:
    """The table shows NumPy's bits and the package's distances for numbers that were typed."""
    inside = explorable(page)
    inside.get_by_label("dtype").select_option(dtype)
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        texts = [f"{random.normal():.{digits}g}" for digits in random.integers(1, 9, 8)]
        devices = int(random.integers(2, 9))
        inside.get_by_label("Number of devices").select_option(str(devices))
        for place, text in enumerate(texts, 1):
            type_number(inside, place, text)
        assert numbers(inside) == texts
        table = shown(inside)
        assert [row[1:] for row in table] == expected(texts, dtype, devices)
        read = np.array([float(row[0]) for row in table], np.float32).astype(DTYPES[dtype])
        words = [f"0x{int(word):0{2 * read.itemsize}x}" for word in bits(read)]
        assert words == [row[1] for row in table]


def test_not_a_number_has_no_bits_and_no_distance(page: Page) -> None:
    """A sum of inf and -inf is nan in every order, which is one and the same result."""
    inside = explorable(page)
    type_number(inside, 1, "inf")
    type_number(inside, 8, "-inf")
    assert shown(inside) == [["nan", "", "?"]] * 5
    expect(inside.get_by_role("status")).to_contain_text(
        "Added left to right: nan; no distance. The four orders give the same sum."
    )


def drawn(svg: Locator) -> list[Any]:
    """What a drawing is made of, in a form that does not depend on how it was written down."""
    return svg.evaluate(
        """svg => [svg, ...svg.querySelectorAll("*")].map((part) => [part.localName,
          part.children.length ? "" : part.textContent,
          [...part.attributes].map(({ name, value }) => `${name}=${value}`).sort()])"""
    )


def test_fallback_is_the_default_state(visit: Visit, page: Page) -> None:
    """Without scripts a reader sees numbers, drawings and words of the default state."""
    inside = explorable(page)
    without = visit(PAGE, java_script_enabled=False).locator("sum-order")
    assert without.locator("input, button, select").count() == 0
    assert shown(inside) == shown(without)
    assert without.locator("ol li").all_inner_texts() == numbers(inside) == NUMBERS
    for place in (0, 1):
        assert drawn(inside.locator("svg").nth(place)) == drawn(without.locator("svg").nth(place))
        assert without.locator("svg").nth(place).is_visible()
    for found in (inside, without):
        rows = found.locator("tbody tr").evaluate_all("rows => rows.map((row) => row.className)")
        assert rows == ["chosen", "", "", "", ""]
    assert inside.locator(".title").inner_text() == without.locator(".title").inner_text()
    assert inside.get_by_role("status").inner_text().strip() in without.inner_text()


def test_default_state_tells_the_story(page: Page) -> None:
    """Before anything is clicked, four orders have given four sums, and the words say so."""
    inside = explorable(page)
    assert [row[1:] for row in shown(inside)] == expected(NUMBERS, "float32")
    assert len({row[1] for row in shown(inside)[:4]}) == 4
    expect(inside.get_by_role("status")).to_have_text(
        "Added left to right: 3.8000004, +2 ULP off the exact sum. "
        "The four orders give 4 different sums."
    )
    assert inside.locator(".tree circle.exact").count() == 2


def test_page_says_what_happens(page: Page) -> None:
    """What the page's list asks a reader to try ends as it says, one thing after the other."""
    inside = explorable(page)
    reset = inside.get_by_role("button", name="Reset")
    tree = inside.locator(".tree svg")
    inside.get_by_label("Pairwise").check()
    pairs = tree.evaluate("svg => svg.outerHTML")
    inside.get_by_label("Number of devices").select_option("4")
    assert distances(inside)[2:] == ["0", "0"]
    assert re.sub(' class="sent"', "", tree.evaluate("svg => svg.outerHTML")) == pairs
    inside.get_by_label("Number of devices").select_option("3")
    assert distances(inside)[3] == "+1"
    reset.click()
    grip = inside.get_by_role("button", name="Move 0.9")
    reset.click()
    for _ in range(2):
        grip.press("ArrowUp")
    assert distances(inside) == ["0", "0", "0", "+1"]
    reset.click()
    inside.get_by_label("dtype").select_option("bfloat16")
    assert [row[0] for row in shown(inside)[:4]] == ["3.83", "3.78", "3.8", "3.81"]
    assert distances(inside) == ["+2", f"{MINUS}1", "0", "+1"]
    for place in range(1, 9):
        type_number(inside, place, "256" if place == 1 else "1")
    assert [row[0] for row in shown(inside)[:2]] == ["256", "264"]
    reset.click()
    inside.get_by_label("Left to right").check()
    exact, farthest = ("0", "376"), {f"{MINUS}3", "+3"}
    assert exact in [bar[:2] for bar in bars(inside)]
    assert {place for place, count, _ in bars(inside) if count} >= farthest
    inside.get_by_label("Pairwise").check()
    drawn_bars = {place: count for place, count, _ in bars(inside) if count}
    assert drawn_bars["0"] == "816"
    assert set(drawn_bars) <= {f"{MINUS}1", "0", "+1"}


def test_answers_say_what_happens(page: Page) -> None:
    """What the answers to the page's questions say is what a reader sees who tries it."""
    inside = explorable(page)
    reset = inside.get_by_role("button", name="Reset")
    for _ in range(4):
        inside.get_by_role("button", name="Move 0.9").press("ArrowUp")
    assert distances(inside) == ["+2", "0", "+1", "+1"]
    reset.click()
    type_number(inside, 2, "0.33")
    in_float32 = distances(inside)
    inside.get_by_label("dtype").select_option("bfloat16")
    assert distances(inside) != in_float32
    reset.click()
    for place, text in enumerate(NUMBERS, 1):
        type_number(inside, place, text.removeprefix("0."))
    assert distances(inside) == ["0"] * 4
    assert inside.locator(".tree circle:not(.exact)").count() == 0


def test_only_keys(page: Page) -> None:
    """Everything is reached and worked with the keyboard, and the focus stays where one works."""
    inside = explorable(page)
    inside.get_by_label("dtype").focus()
    page.keyboard.press("ArrowDown")
    assert inside.get_by_label("dtype").input_value() == "bfloat16"
    page.keyboard.press("ArrowUp")
    for name in ("Shuffle", "Reset"):
        page.keyboard.press("Tab")
        expect(inside.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(inside.get_by_label("Pairwise")).to_be_focused()
    expect(inside.get_by_role("status")).to_contain_text("Added pairwise: 3.8, 0 ULP")
    page.keyboard.press("Tab")
    expect(inside.get_by_label("Number of devices")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert numbers(inside) == ["0.5", "0.3", *NUMBERS[2:]]
    expect(inside.get_by_role("button", name="Move 0.3, number 2")).to_be_focused()
    expect(inside.get_by_role("status")).to_contain_text("0.3 is now number 2.")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert numbers(inside) == NUMBERS
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("2.5")
    page.keyboard.press("Tab")
    expect(inside.get_by_role("status")).to_contain_text("Number 1 is 2.5.")
    expect(inside.get_by_role("button", name="Move 0.5, number 2")).to_be_focused()
    assert [row[1:] for row in shown(inside)] == expected(["2.5", *NUMBERS[1:]], "float32")


def grip(inside: Locator, number: str) -> tuple[float, float]:
    """Where one takes hold of a number."""
    box = inside.get_by_role("button", name=f"Move {number}").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_drag(page: Page) -> None:
    """A number goes where it is dragged, also beyond the ends; a click moves it one place."""
    inside = explorable(page)
    inside.locator("ol").scroll_into_view_if_needed()
    page.mouse.move(*grip(inside, "0.9"))
    page.mouse.down()
    page.mouse.move(*grip(inside, "0.8"), steps=5)
    page.mouse.up()
    assert numbers(inside) == ["0.3", "0.5", "0.1", "0.9", "0.8", "0.6", "0.2", "0.4"]
    page.mouse.move(*grip(inside, "0.5"))  # with no button down, nothing moves
    page.mouse.down()
    page.mouse.move(5, 0, steps=5)
    page.mouse.up()
    assert numbers(inside)[:2] == ["0.5", "0.3"]
    page.mouse.click(*grip(inside, "0.5"))
    assert numbers(inside)[:2] == ["0.3", "0.5"]
    page.mouse.click(*grip(inside, "0.4"))
    assert numbers(inside)[0] == "0.4"


def test_drag_with_a_finger(visit: Visit) -> None:
    """A finger drags a number as a mouse does, and the page does not scroll meanwhile."""
    page = visit(PAGE, width=360, has_touch=True)
    inside = explorable(page)
    inside.locator("ol").scroll_into_view_if_needed()
    (x, start), (_, end) = grip(inside, "0.3"), grip(inside, "0.8")
    finger = page.context.new_cdp_session(page)
    before = page.evaluate("scrollY")

    def touch(kind: str, *points: dict[str, float]) -> None:
        finger.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    touch("Start", {"x": x, "y": start})
    for y in (start + 50, end):
        touch("Move", {"x": x, "y": y})
    expect(inside.get_by_role("button", name="Move 0.3, number 4")).to_be_focused()
    touch("End")
    assert numbers(inside) == ["0.5", "0.1", "0.8", "0.3", *NUMBERS[4:]]
    assert page.evaluate("scrollY") == before


def test_bad_input(page: Page) -> None:
    """A text that is no number is answered with what is allowed; the last sums stay."""
    inside = explorable(page)
    before, status = shown(inside), inside.get_by_role("status")
    field = inside.get_by_label("Number 3", exact=True)
    for text in ("", "abc", "1/3", "0,1", "1e39", "-1e999", "0x10"):
        type_number(inside, 3, text)
        expect(status).to_have_text(
            "Number 3 must be a decimal such as 0.1, -2 or 1e8, no larger than 3.38e38, "
            "or inf, -inf or nan; until it is, 0.1 is added."
        )
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description("no number: 0.1 is added")
        expect(field).to_have_value(text)
        assert shown(inside) == before
        inside.get_by_label("Pairwise").check()
        expect(status).to_contain_text("Number 3 must be")
        type_number(inside, 3, "0.7")
        expect(field).to_have_attribute("aria-invalid", "false")
        right = expected([*NUMBERS[:2], "0.7", *NUMBERS[3:]], "float32")
        assert [row[1:] for row in shown(inside)] == right
        inside.get_by_role("button", name="Reset").click()
        assert shown(inside) == before


def test_shuffle_and_reset(page: Page) -> None:
    """Shuffle gives another order of the same numbers each time, and Reset the first state."""
    inside = explorable(page)
    orders = []
    for _ in range(3):
        inside.get_by_role("button", name="Shuffle").click()
        orders.append(tuple(numbers(inside)))
        assert [row[1:] for row in shown(inside)] == expected(list(orders[-1]), "float32")
    assert len(set(orders)) == 3
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(NUMBERS))}
    inside.get_by_role("button", name="Reset").click()
    assert numbers(inside) == NUMBERS


def test_two_on_one_page(page: Page) -> None:
    """A second explorable on the page has a state of its own, and keeps it when it is moved."""
    explorable(page)
    page.evaluate("document.querySelector('figure').append(document.createElement('sum-order'))")
    first, second = page.locator("sum-order").all()
    second.get_by_label("Pairwise").check()
    second.get_by_role("button", name="Move 0.3").press("ArrowDown")
    assert first.get_by_label("Left to right").is_checked()
    assert numbers(first) == NUMBERS != numbers(second)
    page.evaluate(
        "document.querySelector('figure').prepend(document.querySelectorAll('sum-order')[1])"
    )
    moved = page.locator("sum-order").first
    assert numbers(moved)[:2] == ["0.5", "0.3"]
    assert moved.get_by_label("Pairwise").is_checked()


def test_instant_navigation(page: Page, site: Path, address: str) -> None:
    """The explorable works on a page that the theme swaps in, without loading anything anew."""
    # The theme swaps pages that the sitemap names, and this server is not where it says.
    pages = [file.parent.relative_to(site).as_posix() for file in site.rglob("index.html")]
    urls = "".join(f"<url><loc>{address}{name}/</loc></url>" for name in pages)
    page.route("**/sitemap.xml", lambda route: route.fulfill(body=f"<urlset>{urls}</urlset>"))
    page.reload()
    explorable(page)
    page.evaluate("window.kept = true")
    page.locator("article a", has_text="The compiler chooses the order").click()
    expect(page.locator("h1")).to_contain_text("the same")
    inside = explorable(page)
    inside.get_by_label("Pairwise").check()
    expect(inside.get_by_role("status")).to_contain_text("Added pairwise")
    assert page.evaluate("window.kept"), "the page was loaded, not swapped"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow(visit: Visit, scheme: str) -> None:
    """At 360 pixels nothing scrolls sideways, and what is touched is 24 pixels high and wide."""
    page = visit(PAGE, width=360, color_scheme=scheme)
    inside = explorable(page)
    for label in LABELS:
        inside.get_by_label(label, exact=True).check()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert inside.locator(".tree").evaluate("box => box.scrollWidth <= box.clientWidth")
    for target in inside.locator("button, select, ol input, label").all():
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 24


def test_rows_meet_the_tree(page: Page) -> None:
    """Each wire begins at the middle of its number: style sheet and drawing agree on a row."""
    inside = explorable(page)
    fields = [field.bounding_box() for field in inside.locator("ol input").all()]
    middles = [box["y"] + box["height"] / 2 for box in fields]
    wires = [wire.bounding_box()["y"] for wire in inside.locator('.tree line[x1="0%"]').all()]
    assert np.allclose(sorted(wires), middles, atol=1)


def test_nothing_moves_by_itself(visit: Visit) -> None:
    """There is no animation and no transition, whatever a reader prefers."""
    inside = explorable(visit(PAGE, reduced_motion="reduce"))
    moving = """all => all.filter((one) => one.getAnimations({ subtree: true }).length)"""
    inside.get_by_label("Pairwise").check()
    assert inside.locator("*").evaluate_all(moving) == []


def test_sizes() -> None:
    """A script has at most 9,000 bytes, all have 9,000 compressed; the style sheet has 3,000."""
    scripts = ["sum-order.mjs"]
    for name in scripts:  # grows by what each imports
        text = (SOURCES / name).read_text(encoding="utf-8")
        scripts += [found for found in re.findall(r'from "\./(.+)"', text) if found not in scripts]
    assert len(scripts) == 5
    contents = [(SOURCES / name).read_bytes() for name in scripts]
    assert max(map(len, contents)) <= 9000
    assert sum(len(gzip.compress(content)) for content in contents) <= 9000
    assert (SOURCES / "sum-order.css").stat().st_size <= 3000
