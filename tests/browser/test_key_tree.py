"""The key tree: its numbers are JAX's, and everyone can use it."""

import contextlib
import gzip
import io
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.random import bits, clone, fold_in, key_data, split, uniform
from jax.random import key as key_of
from playwright.sync_api import Locator, Page, expect

from reproducibility import stream_key

FOLDER = Path(__file__).parents[2] / "docs" / "explorables"
MODULES = ("key-tree.mjs", "key-tree-model.mjs", "key-tree-calls.mjs", "threefry.mjs", "words.mjs")
PAGE = "explorables/key_tree/"
LARGEST = 2**32 - 1
CLIPBOARD = ["clipboard-read", "clipboard-write"]

Visit = Callable[..., Page]


def some_numbers(count: int, salt: str) -> list[int]:
    """The same numbers of 32 bits in every session, the least and the largest among them."""
    chance = random.Random(salt)
    return [0, 1, 2**31, LARGEST, *(chance.randrange(2**32) for _ in range(count))]


def plain(key: jax.Array) -> list[int]:
    """The words of a key."""
    words: list[int] = key_data(key).tolist()
    return words


def tree_of(page: Page) -> Locator:
    """The first explorable of a page, once it is upgraded."""
    tree = page.locator("key-tree").first
    expect(tree.locator("[name=seed]")).to_be_visible()
    return tree


def choose(tree: Locator, name: str) -> None:
    """Choose the first key of this name."""
    tree.locator(".key-tree-key", has=named(tree, name)).first.locator("input").check()


def named(tree: Locator, name: str) -> Locator:
    """The place of a key's name."""
    return tree.page.locator("b", has_text=re.compile(f"^{name}$"))


def press(tree: Locator, *names: str) -> None:
    """Press buttons, each of which says something new."""
    for name in names:
        tree.locator(f"button[name={name}]").click()


def grow(tree: Locator, *steps: str) -> None:
    """Use keys: `shuffle fold_in 7` chooses a key, presses a button, and gives what it needs."""
    for step in steps:
        name, button, *value = step.split()
        choose(tree, name)
        if value:
            field = "number" if button == "fold_in" else "stream"
            control = tree.locator(f"[name={field}]")
            control.fill(value[0]) if field == "number" else control.select_option(value[0])
        press(tree, button)


def read_keys(tree: Locator) -> list[dict[str, Any]]:
    """Each key that is shown: name, call, words, what is said of its reuse, and its draws."""
    found: list[dict[str, Any]] = tree.evaluate(
        """(tree) => [...tree.querySelectorAll(".key-tree-key")].map((key) => ({
          name: key.querySelector("b").textContent,
          call: key.querySelector("small").textContent,
          words: key.querySelector("span").textContent.split(" ").map((word) => parseInt(word, 16)),
          reused: key.querySelector("em")?.textContent ?? "",
          draws: [...key.parentElement.querySelectorAll(":scope > ul > li > .key-tree-draw")].map(
            (draw) => ({
              bits: draw.querySelector("b").textContent,
              number: draw.querySelector("span").textContent,
              red: draw.matches(".key-tree-red"),
              said: draw.querySelector("em")?.textContent ?? "",
            }),
          ),
        }))"""
    )
    return found


def differences(shown: list[dict[str, Any]]) -> list[str]:
    """What differs from the keys and draws that JAX computes from the calls shown."""
    known = {"key": key_of, "split": split, "fold_in": fold_in, "stream_key": stream_key}
    found = []
    with jax.debug_key_reuse(False):  # some trees reuse keys on purpose
        for one in shown:
            key = known[one["name"]] = eval(one["call"], dict(known))
            if plain(key) != one["words"]:
                found.append(f"words of {one['name']}")
            for draw in one["draws"]:
                if int(draw["bits"], 16) != int(bits(key)):
                    found.append(f"bits of {one['name']}")
                if np.float32(draw["number"]) != uniform(key):
                    found.append(f"number of {one['name']}")
    return found


def run(program: str) -> list[list[str]]:
    """Run a program that was copied; return the words of the lines it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {"__name__": "__main__"})
    return [line.split() for line in printed.getvalue().splitlines()]


GROWN = [
    "root fold_in 4294967295",
    "root_4294967295 draw",
    "dropout split",
    "dropout_1 fold_in 3",
    "dropout_1_3 draw",
    "shuffle_0 split",
    "shuffle_0_1 draw",
    "shuffle stream_key augment",
    "shuffle_augment draw",
]


def test_the_modules_compute_what_jax_computes(visit: Visit) -> None:
    """Keys, splits, folds, bits and uniform numbers of many seeds are JAX's, bit for bit."""
    seeds, numbers = some_numbers(40, "seeds"), some_numbers(6, "numbers")
    ours = visit(PAGE).evaluate(
        """async ([seeds, numbers]) => {
          const jax = await import("../threefry.mjs");
          return seeds.map(jax.key).map((key) => ({
            words: key,
            split: jax.split(key, 3),
            folded: numbers.map((number) => jax.foldIn(key, number)),
            bits: jax.bits(key, 5),
            uniform: jax.uniform(key, 5),
          }));
        }""",
        [seeds, numbers],
    )
    for seed, one in zip(seeds, ours, strict=True):
        key = key_of(seed)
        assert one["words"] == plain(key)
        assert one["folded"] == [plain(fold_in(key, number)) for number in numbers]
        assert one["bits"] == bits(clone(key), (5,)).tolist()
        assert one["uniform"] == uniform(clone(key), (5,)).tolist()
        assert one["split"] == plain(split(clone(key), 3))


def test_the_names_are_folded_in_as_the_package_does(visit: Visit) -> None:
    """A stream's key is that of `reproducibility.stream_key`, for every name that is offered."""
    seeds = some_numbers(4, "streams")
    ours = visit(PAGE).evaluate(
        """async (seeds) => {
          const { STREAMS, streamKey } = await import("../key-tree-model.mjs");
          const keys = (name) => seeds.map((seed) => streamKey([0, seed], name));
          return Object.fromEntries(Object.keys(STREAMS).map((name) => [name, keys(name)]));
        }""",
        seeds,
    )
    assert len(ours) == 4
    for name, keys in ours.items():
        assert keys == [plain(stream_key(key_of(seed), name)) for seed in seeds]


def test_every_number_of_the_tree_is_jax_s(visit: Visit) -> None:
    """After clicks and for other seeds, each key and draw is what JAX makes of the call shown."""
    tree = tree_of(visit(PAGE))
    grow(tree, *GROWN)
    for seed in some_numbers(8, "trees"):
        tree.locator("[name=seed]").fill(str(seed))
        shown = read_keys(tree)
        assert shown[0]["call"] == f"key({seed})"
        assert len(shown) == 13
        assert sum(len(one["draws"]) for one in shown) == 9
        assert differences(shown) == []


def test_one_wrong_bit_would_be_noticed(visit: Visit) -> None:
    """The comparison with JAX fails when one bit of a key or a draw is another one."""
    tree = tree_of(visit(PAGE))
    shown = read_keys(tree)
    shown[1]["words"][1] ^= 1
    assert differences(shown) == ["words of params"]
    shown = read_keys(tree)
    draw = shown[1]["draws"][0]
    draw["bits"] = f"{int(draw['bits'], 16) ^ 2**31:08x}"
    draw["number"] = str(np.nextafter(np.float32(draw["number"]), np.float32(1)))
    assert differences(shown) == ["bits of params", "number of params"]


def generator(root: jax.Array, names: list[str]) -> list[int]:
    """The next number of one sequence for each call."""
    numbers: list[int] = bits(clone(root), (len(names),)).tolist()
    return numbers


def chain(root: jax.Array, names: list[str]) -> list[int]:
    """Each call splits the key that the one before it left."""
    drawn, carried = [], clone(root)
    for _ in names:
        carried, own = split(carried)
        drawn.append(int(bits(own)))
    return drawn


def streams(root: jax.Array, names: list[str]) -> list[int]:
    """Each call has a key of its own."""
    return [int(bits(stream_key(root, name))) for name in names]


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_what_moves_when_the_calls_move(visit: Visit, extra: bool, early: bool) -> None:
    """The table shows what JAX draws in the order of the calls, and marks exactly what moved."""
    tree = tree_of(visit(PAGE))
    usual = ["params", "dropout", "shuffle"]
    names = ["shuffle", "params", "dropout"] if early else usual
    names = ["augment", *names] if extra else names
    tree.locator("[name=extra]").set_checked(extra)
    tree.locator("[name=early]").set_checked(early)
    for seed in some_numbers(1, "calls"):
        tree.locator("[name=seed]").fill(str(seed))
        shown, moved = read_table(tree), []
        assert [row[0] for row in shown[:-1]] == names
        for column, way in enumerate((generator, chain, streams), 1):
            drawn = dict(zip(names, way(key_of(seed), names), strict=True))
            before = dict(zip(usual, way(key_of(seed), usual), strict=True)) | {"augment": None}
            notes = {
                name: "new" if was is None else "stays" if was == drawn[name] else f"was {was:08x}"
                for name, was in before.items()
            }
            assert [row[column] for row in shown[:-1]] == [
                f"{drawn[name]:08x} {notes[name]}" for name in names
            ]
            moved.append(sum(drawn[name] != before[name] for name in usual))
        assert shown[-1] == ["moved", *(f"{count} of 3" for count in moved)]
        assert moved == [3 * (extra or early), 3 * (extra or early), 0]


def read_table(tree: Locator) -> list[list[str]]:
    """The rows below the head of the table."""
    rows: list[list[str]] = tree.evaluate(
        """(tree) => [...tree.querySelectorAll("tbody tr, tfoot tr")].map((row) =>
          [...row.cells].map((cell) => cell.textContent.trim()))"""
    )
    return rows


def test_it_says_what_one_can_do_and_what_one_sees(visit: Visit) -> None:
    """Above the tree stands that a key is to be chosen, above the table what changed the calls."""
    tree = tree_of(visit(PAGE))
    expect(tree.locator(".key-tree-keys p")).to_have_text("Choose a key, then:")
    for ticked, change in (
        (["extra"], ", before and after one more call"),
        (["extra", "early"], ", before and after one more call and another order"),
        (["early"], ", before and after another order"),
        ([], ""),
    ):
        for name in ("extra", "early"):
            tree.locator(f"[name={name}]").set_checked(name in ticked)
        expect(tree.locator("caption")).to_have_text(f"The same three draws{change}")


def test_a_key_drawn_from_twice_gives_the_same_numbers_again(visit: Visit) -> None:
    """A second draw turns both draws red, shows equal numbers, and is said in words."""
    tree = tree_of(visit(PAGE))
    grow(tree, "params draw")
    params = read_keys(tree)[1]
    first, second = params["draws"]
    assert (first["bits"], first["number"]) == (second["bits"], second["number"])
    assert [first["red"], second["red"]] == [True, True]
    assert second["said"] == "same numbers again"
    assert params["reused"] == "reused: drawn 2 times; JAX's checker raises"
    expect(tree.locator("[role=status]")).to_have_text(
        f"params draws {first['bits']}, the same numbers again. "
        "params is reused: drawn 2 times; JAX's checker raises."
    )


def test_equal_keys_in_two_places_are_found(visit: Visit) -> None:
    """`split` and `fold_in` of one parent give one key twice; drawing from both is red, too."""
    tree = tree_of(visit(PAGE))
    grow(tree, "dropout clear", "shuffle split")
    twins = [one for one in read_keys(tree) if one["name"] == "shuffle_0"]
    assert [one["call"] for one in twins] == ["fold_in(shuffle, 0)", "split(shuffle)[0]"]
    assert twins[0]["words"] == twins[1]["words"]
    tree.locator(".key-tree-key", has=named(tree, "shuffle_0")).last.click()
    press(tree, "draw")
    shown = read_keys(tree)
    draws = [draw for one in shown if one["name"] == "shuffle_0" for draw in one["draws"]]
    assert [draw["red"] for draw in draws] == [True, True]
    assert [draw["said"] for draw in draws] == ["", "same numbers again"]
    assert draws[0]["bits"] == draws[1]["bits"]
    assert [one["reused"] for one in shown if one["reused"]] == [
        "reused: split, folded into; JAX's checker is silent"
    ]
    with jax.debug_key_reuse(True):  # as the page says, it does not see equal words
        run(tree.locator("textarea").input_value())


def test_the_same_call_makes_no_second_key(visit: Visit) -> None:
    """Folding the same number in again, or splitting again, adds nothing and says why."""
    tree = tree_of(visit(PAGE))
    grow(tree, "shuffle fold_in 2", "params split")
    before = read_keys(tree)
    for step in ("shuffle fold_in 2", "params split"):
        grow(tree, step)
        expect(tree.locator("[role=status]")).to_contain_text("again: the same words")
    assert read_keys(tree) == before


@pytest.mark.parametrize(
    ("steps", "raises"),
    [
        (["dropout clear"], False),
        ([], True),
        (["dropout clear", "params draw"], True),
        (["dropout clear", "params split"], True),
        (["dropout clear", "params fold_in 0"], False),
        (["dropout clear", "shuffle split"], False),
        (["dropout clear", "shuffle draw"], False),
        (["dropout clear", "params split", "params fold_in 5"], True),
        (["dropout clear", *GROWN], True),
    ],
)
def test_the_checker_raises_where_the_page_says_so(
    visit: Visit, steps: list[str], raises: bool
) -> None:
    """`jax.debug_key_reuse` refuses the copied program exactly if the tree says that it raises."""
    tree = tree_of(visit(PAGE))
    grow(tree, *steps)
    said = any(one["reused"].endswith("raises") for one in read_keys(tree))
    assert said == raises
    program = tree.locator("textarea").input_value()
    with jax.debug_key_reuse(True):
        if raises:
            with pytest.raises(jax.errors.KeyReuseError):
                run(program)
        else:
            run(program)


def test_copy_as_python_gives_a_program_with_the_same_numbers(visit: Visit) -> None:
    """The clipboard holds a program whose keys and printed draws are those of the tree."""
    page = visit(PAGE, permissions=CLIPBOARD)
    tree = tree_of(page)
    grow(tree, *GROWN)
    tree.locator("[name=seed]").fill("3141592653")
    press(tree, "copy")
    expect(tree.locator("[role=status]")).to_have_text("Copied: the program is on the clipboard.")
    with jax.debug_key_reuse(False):
        printed = run(page.evaluate("navigator.clipboard.readText()"))
    assert printed == [
        [one["name"], draw["bits"], draw["number"]]
        for one in read_keys(tree)
        for draw in one["draws"]
    ]
    assert len(printed) == 9


def test_a_blocked_clipboard_leaves_the_program_selected(visit: Visit) -> None:
    """Without a clipboard the program is shown, has the focus, and is selected as a whole."""
    page = visit(PAGE)
    tree = tree_of(page)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    press(tree, "copy")
    expect(tree.locator("[role=status]")).to_contain_text("The clipboard is blocked")
    program = tree.locator("textarea")
    expect(program).to_be_visible()
    expect(program).to_be_focused()
    selected = program.evaluate("(it) => it.value.slice(it.selectionStart, it.selectionEnd)")
    assert selected == program.input_value()
    above, below = tree.locator("[role=status]").bounding_box(), program.bounding_box()
    assert above is not None
    assert below is not None
    assert above["y"] + above["height"] <= below["y"]  # it covers no line of the program


def test_the_page_runs_the_program_of_the_default_tree(visit: Visit) -> None:
    """The first block of the page, which the tests run, is what the button copies at first."""
    page = visit(PAGE)
    shown = page.locator("article .highlight code").first.inner_text()
    assert tree_of(page).locator("textarea").input_value().strip() == shown.strip()


BAD = ["", " ", "-1", "4294967296", "9" * 400, "1.5", "1e3", "0x2a", "forty-two", "١٢", "NaN"]


def test_a_bad_seed_is_refused_in_words(visit: Visit) -> None:
    """What is no seed is marked, the allowed range is said, and the last good tree stays usable."""
    tree = tree_of(visit(PAGE))
    seed, status = tree.locator("[name=seed]"), tree.locator("[role=status]")
    for bad in BAD:
        seed.fill("7")
        expect(status).to_contain_text("Seed 7")
        before = read_keys(tree)
        seed.fill(bad)
        expect(seed).to_have_attribute("aria-invalid", "true")
        expect(status).to_have_text(
            "The seed must be a whole number from 0 to 4294967295 (2**32 - 1)."
        )
        assert read_keys(tree) == before
    expect(seed).to_have_accessible_description("not a whole number from 0 to 2**32 - 1")
    caption = tree.locator("xpath=following-sibling::figcaption")
    expect(caption).to_contain_text("A tree of 6 keys from seed 7. Used more than once: dropout.")
    grow(tree, "params draw")
    expect(caption).to_contain_text("Used more than once: params, dropout.")
    assert differences(read_keys(tree)) == []
    seed.fill(" 0042 ")
    expect(seed).to_have_attribute("aria-invalid", "false")
    assert read_keys(tree)[0]["call"] == "key(42)"


def test_a_bad_number_is_refused_in_words(visit: Visit) -> None:
    """A number that cannot be folded in adds no key, and is said; a good one works afterwards."""
    tree = tree_of(visit(PAGE))
    before = read_keys(tree)
    for bad in BAD:
        grow(tree, "shuffle draw", "shuffle clear")  # says something else
        press(tree, "restart")
        tree.locator("[name=number]").fill(bad)
        press(tree, "fold_in")
        expect(tree.locator("[role=status]")).to_have_text(
            "The number must be a whole number from 0 to 4294967295 (2**32 - 1)."
        )
        assert read_keys(tree) == before
    grow(tree, f"shuffle fold_in {LARGEST}")
    assert read_keys(tree)[-1]["name"] == f"shuffle_{LARGEST}"


def test_start_again_gives_back_the_first_tree(visit: Visit) -> None:
    """After any use, one button brings back the default, controls included."""
    tree = tree_of(visit(PAGE))
    before = tree.inner_text(), tree.locator("textarea").input_value()
    grow(tree, *GROWN)
    tree.locator("[name=extra]").uncheck()
    tree.locator("[name=seed]").fill("x")
    press(tree, "restart")
    expect(tree.locator("[role=status]")).to_have_text("The tree is as it was at first.")
    tree.locator("[role=status]").evaluate("(it) => (it.textContent = '')")
    assert (tree.inner_text(), tree.locator("textarea").input_value()) == before
    assert tree.locator("[aria-invalid]").count() == 0


def test_everything_works_from_the_keyboard(visit: Visit) -> None:
    """Tab, arrows, Enter and Space reach and use every control, and the focus is never lost."""
    page = visit(PAGE)
    tree = tree_of(page)
    focused = "document.activeElement.name"
    tree.locator("[name=seed]").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "seed"
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate(focused))
    assert order[:3] == ["copy", "restart", "key"]
    assert order[3:11] == [
        *("draw", "split", "fold_in", "number", "stream_key", "stream", "clear"),
        "extra",
    ]
    assert order[11] == "early"
    page.keyboard.press("Space")
    assert page.evaluate(focused) == "early"
    assert tree.locator("tbody th").all_inner_texts()[1] == "shuffle"
    tree.locator("[name=key]:checked").focus()
    page.keyboard.press("ArrowUp")  # from shuffle to dropout
    assert page.evaluate(focused) == "key"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "draw"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.evaluate(focused) == "split"
    dropout = read_keys(tree)[2]
    assert (dropout["name"], len(dropout["draws"])) == ("dropout", 3)
    assert dropout["reused"] == "reused: drawn 3 times, split; JAX's checker raises"


# Each text of the tree and the table, with its depth in the tree and whether it is red.
PARTS = "b, small, em, th, caption, li span:not(:has(*))"
TOLD = """(it, parts) => [...it.querySelectorAll(parts)].map((part) => {
  let depth = 0;
  for (let list = part.closest("ul"); list; list = list.parentElement.closest("ul")) depth += 1;
  return [part.textContent.trim(), depth, part.closest(".key-tree-red") !== null];
})"""


def test_without_scripts_the_same_is_told(visit: Visit) -> None:
    """The static tree and table say in every place what the element shows at first."""
    static = visit(PAGE, java_script_enabled=False).locator("key-tree").first
    expect(static.locator(".key-tree-keys")).to_be_visible()
    expect(static.locator(".key-tree-calls")).to_be_visible()
    assert static.locator("button, input").count() == 0
    told = static.evaluate(TOLD, PARTS)
    assert len(told) > 60
    assert told == tree_of(visit(PAGE)).evaluate(TOLD, PARTS)


def test_two_of_them_do_not_disturb_each_other(visit: Visit) -> None:
    """A second element on the page has its own seed, choice and tree."""
    page = visit(PAGE)
    first = tree_of(page)
    page.evaluate(
        """() => {
          const second = document.createElement("key-tree");
          second.setAttribute("seed", "8");
          document.querySelector("key-tree").after(second);
        }"""
    )
    second = page.locator("key-tree").nth(1)
    before = read_keys(first)
    grow(second, "params draw", "root split")
    assert read_keys(first) == before
    assert read_keys(second)[0]["call"] == "key(8)"
    assert differences(read_keys(second)) == []
    expect(first.locator("[name=key]:checked")).to_have_value("3")
    expect(second.locator("[name=key]:checked")).to_have_value("0")


def test_it_comes_with_instant_navigation_and_goes(visit: Visit) -> None:
    """Following a link to the chapter and coming back leaves a working tree on each page."""
    page = visit("workflow/complete_flow/")
    for path in ("fundamentals/jax_prng_tutorial/", PAGE):
        page.locator(f".md-nav a[href$='{path}']").first.evaluate("(it) => it.click()")
        page.wait_for_url(f"**/{path}")
        tree = tree_of(page)
        grow(tree, "params draw")
        assert read_keys(tree)[1]["reused"]
        assert page.locator("key-tree").count() == 1


@pytest.mark.parametrize("width", [360, 1440])
def test_a_deep_tree_fits_and_can_be_touched(visit: Visit, width: int) -> None:
    """A deep tree never makes the page scroll sideways, and no control is under 24 pixels."""
    page = visit(PAGE, width=width)
    tree = tree_of(page)
    name = "shuffle"
    for depth in range(14):
        grow(tree, f"{name} fold_in {LARGEST}")
        name += f"_{LARGEST}"
        if depth == 2:  # long names are broken, before a box has to scroll
            assert sideways(tree.locator(".key-tree-keys")) == 0
    grow(tree, f"{name} draw")
    press(tree, "copy")
    assert sideways(page.locator("html")) == 0
    for control in tree.locator("label, button, select, [inputmode]").all():
        box = control.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24, control.inner_html()


def sideways(box: Locator) -> int:
    """How far a box can be scrolled sideways."""
    hidden: int = box.evaluate("(it) => it.scrollWidth - it.clientWidth")
    return hidden


def test_nothing_moves_by_itself(visit: Visit) -> None:
    """There is no animation to reduce: a change is there at once."""
    page = visit(PAGE, reduced_motion="no-preference")
    tree = tree_of(page)
    press(tree, "draw", "split")
    running = "(it) => it.getAnimations({ subtree: true }).length"
    assert tree.evaluate(running) == 0


def test_it_is_small() -> None:
    """Each module is at most 9,000 bytes, and all it loads is at most 9,000 compressed."""
    sizes = {name: (FOLDER / name).read_bytes() for name in MODULES}
    imported = {
        name for text in sizes.values() for name in re.findall(rb'from "\./([\w.-]+)"', text)
    }
    assert {name.encode() for name in MODULES} == imported | {b"key-tree.mjs"}
    assert max(len(text) for text in sizes.values()) <= 9000
    assert sum(len(gzip.compress(text)) for text in sizes.values()) <= 9000
