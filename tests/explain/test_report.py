"""Promises of `reproducibility.explain.report`."""

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reproducibility
from reproducibility import Distance, Recorder, RunSaveError, compare
from reproducibility.explain.comparison import Comparison, Recomputed
from reproducibility.explain.report import (
    BOTTOM,
    EQUAL,
    MEANINGS,
    NO_NUMBER,
    TOP,
    report,
    write_report,
)
from reproducibility.machine.environment import Difference
from reproducibility.recording.lines import FIELDS

Element = ElementTree.Element
STYLE = (
    Path(reproducibility.__file__).with_name("explain").joinpath("report.css").read_text("utf-8")
)
CONFIRMED = Recomputed("confirmed", "2 recorded steps came out with the same fingerprints.")
REFUTED = Recomputed("refuted", "Step 3 came out different.")


def hexed(value: float) -> str:
    """Write a loss as a ledger does."""
    return float(value).hex()


def parted(**changes: Any) -> Comparison:
    """Make a comparison of two runs that diverge at step 3, in their gradients."""
    one = np.float32(1)
    losses = [(0, None, None)]
    losses += [(step, hexed(1), hexed(1)) for step in (1, 2, 3)]
    losses += [
        (step, hexed(1), hexed(one + one.dtype.type(ulp * 2.0**-23)))
        for step, ulp in ((4, 1), (5, 10), (6, 1000), (9, 100))
    ]
    usual = Comparison(
        "different",
        "They diverge at step 3.",
        3,
        "gradients",
        ("gradients", "opt_state", "params"),
        ("w", "b"),
        {"w": Distance("float32", 20, 4, 7)},
        (CONFIRMED, CONFIRMED),
        ("0a" * 32, "1b" * 32),
        losses=losses,
    )
    return dataclasses.replace(usual, **changes)


def parsed(found: Comparison, names: tuple[str, str] = ("a", "b")) -> Element:
    """Return the body of the page; what is not well-formed is an error."""
    page = report(found, names=names)
    return ElementTree.fromstring("<body>" + page.partition("<body>")[2].partition("</html>")[0])


def words(element: Element | None) -> str:
    """Return the text of an element, as a reader sees it."""
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def section(body: Element, title: str) -> Element | None:
    """Return the section with a heading, if it is there."""
    found = [each for each in body.iter("section") if words(each.find("h2")) == title]
    assert len(found) < 2
    return found[0] if found else None


def rows(table: Element | None) -> list[list[str]]:
    """Return the cells of a table, the headings first."""
    assert table is not None
    return [[words(cell) for cell in row] for row in table.iter("tr")]


def picture(body: Element, title: str) -> Element:
    """Return the drawing with a title."""
    [found] = [each for each in body.iter("svg") if each.findtext("title") == title]
    return found


def across(element: Element, name: str) -> float:
    """Return a place or length in percent of the width."""
    text = element.attrib[name]
    assert text.endswith("%")
    return float(text[:-1])


def dots(body: Element) -> dict[int, Element]:
    """Return what is drawn for each step: a dot, a ring or a cross."""
    drawn = picture(body, "How far the losses are apart")
    marks = [
        each for each in drawn if each.tag in ("circle", "text") and each.find("title") is not None
    ]
    steps = [re.match(r"step ([\d,]+): ", each.findtext("title") or "") for each in marks]
    return {int(s[1].replace(",", "")): each for s, each in zip(steps, marks, strict=True) if s}


@pytest.mark.parametrize(
    ("verdict", "sign", "kind"),
    [
        ("same", "= Same", "same"),
        ("different", "≠ Different", "different"),
        ("cannot be told", "? Cannot be told", "cannot"),
    ],
)
def test_the_verdict_is_a_word_a_sign_and_a_colour(verdict: Any, sign: str, kind: str) -> None:
    """Each verdict has its word, sign and colour, in heading and title, with the reason below."""
    found = Comparison(verdict, "Because & so.", None)
    header = parsed(found).find("main/header")
    assert header is not None
    assert (words(header.find("h1")), words(header.find("p"))) == (sign, "Because & so.")
    assert header.attrib["class"] == kind
    assert re.search(rf"header\.{kind} {{ --tone: var\(--\w+\)", STYLE)
    assert f"<title>{sign}: one and two</title>" in report(found, names=("one", "two"))


def test_names_and_digests_stand_at_the_top() -> None:
    """What was compared is named beside the digest of its state, or that none is known."""
    table = parsed(parted(digests=("0a" * 32, None)), ("runs/1", "runs/2")).find(
        "main/header/table"
    )
    expected = [
        ["", "compared", "digest"],
        ["a", "runs/1", "0a" * 32],
        ["b", "runs/2", "not known"],
    ]
    assert rows(table) == expected


def strip(found: Comparison) -> list[tuple[str, float, float]]:
    """Return kind, start and width of each part of the strip of steps."""
    drawn = picture(parsed(found), "The steps of both").findall("rect")
    return [(each.attrib["class"], across(each, "x"), across(each, "width")) for each in drawn]


def test_the_strip_shows_where_they_part() -> None:
    """Steps that agree and steps after the divergence take their share of the strip, and say so."""
    assert strip(parted()) == [("agreed", 0, 30), ("parted", 30, 70)]
    body = parsed(parted())
    drawn = picture(body, "The steps of both")
    assert drawn.findtext("desc") == "the same up to step 2; apart from step 3 on."
    [legend] = [each for each in body.iter("ul") if each.get("class") == "legend"]
    assert words(legend) == "the same up to step 2 apart from step 3 on"
    lines = {(e.attrib["class"], e.attrib["x1"], e.attrib["x2"]) for e in drawn.findall("line")}
    ends = {("mark", "30.00%"), ("zoom", "0%"), ("zoom", "100%")}
    assert {(kind, end) for kind, _, end in lines} == ends
    assert {start for _, start, _ in lines} == {"30.00%"}


def test_steps_that_were_not_recorded_are_not_said_to_agree() -> None:
    """Between the last step that both recorded and the divergence, nothing is claimed."""
    losses = [(0, None, None), (10, hexed(1), hexed(1)), (19, hexed(1), hexed(2))]
    found = parted(step=15, losses=losses)
    assert strip(found) == [("agreed", 0, 55), ("unknown", 55, 20), ("parted", 75, 25)]
    assert "steps 11 to 14: not recorded" in words(section(parsed(found), "Step by step"))


@pytest.mark.parametrize("step", [0, 9])
def test_they_may_part_at_the_first_step_or_the_last(step: int) -> None:
    """A divergence at the start has nothing before it, one in the last step nothing after it."""
    losses = [(n, hexed(1), hexed(1)) for n in range(10)]
    both = [("agreed", 0, 90), ("parted", 90, 10)]
    assert strip(parted(step=step, losses=losses)) == (both if step else [("parted", 0, 100)])


def test_without_a_divergence_the_strip_ends_where_the_ledgers_agree() -> None:
    """Ledgers that agree are one green strip; without ledgers nothing is said of the steps."""
    losses = [(n, hexed(1), hexed(1)) for n in (8, 9)]
    same = Comparison("same", "Same.", 12, losses=losses)
    assert strip(same) == [("agreed", 0, 100)]
    assert "the same up to step 9 " in words(section(parsed(same), "Step by step"))
    assert "No ledger" not in words(section(parsed(same), "Step by step"))
    assert section(parsed(same), "How the distance grows") is None
    assert section(parsed(dataclasses.replace(same, losses=[])), "Step by step") is None
    for verdict in ("different", "cannot be told"):
        told = words(section(parsed(Comparison(verdict, "?", 12)), "Step by step"))
        assert told == "Step by step No ledger tells a step at which they part."


def stages(found: Comparison) -> list[tuple[str, str, str]]:
    """Return name, kind and words of each stage that is drawn."""
    [items] = [each for each in parsed(found).iter("ol") if each.get("class") == "stages"]
    return [(words(e.find("b")), e.attrib["class"], words(e.find("span"))) for e in items]


def test_the_stages_stand_in_the_order_of_cause_and_effect() -> None:
    """All five are drawn in their order; the first that differs is marked in words and lines."""
    none, later = ("", "no difference found"), ("later", "≠ differs too")
    assert stages(parted()) == [
        ("batch", *none),
        ("key", *none),
        ("gradients", "first", "≠ differs first"),
        ("opt_state", *later),
        ("params", *later),
    ]
    assert words(parsed(parted()).find(".//h3")) == "Step 3, from cause to effect"


def test_a_loss_alone_is_a_stage_of_its_own() -> None:
    """Where only the loss differs, it is drawn behind the others, and no leaf is missed."""
    found = parted(stage="loss", stages=("loss",), leaves=())
    assert stages(found)[5:] == [("loss", "first", "≠ differs first")]
    assert {kind for _, kind, _ in stages(found)[:5]} == {""}
    assert section(parsed(found), "What differs") is None


@pytest.mark.parametrize("stage", [*FIELDS, "weights", "a<b>"])
def test_any_stage_has_its_place(stage: str) -> None:
    """Whatever stage a comparison names stands on the page as the first that differs.

    What a ledger of this version can hold is explained there; a name from elsewhere is text.
    """
    found = stages(parted(stage=stage, stages=(stage,), leaves=()))
    assert [name for name, kind, _ in found if kind == "first"] == [stage]
    assert (stage in FIELDS) == (stage in MEANINGS)


def height(ulp: int, decades: int) -> float:
    """Return where a distance must be drawn, in pixels from above."""
    return BOTTOM - (BOTTOM - TOP) * math.log10(ulp) / decades


def test_the_picture_agrees_with_the_losses() -> None:
    """Across, a point stands at its step; up, at its distance in ULP, or on the line of zero."""
    drawn = dots(parsed(parted()))
    expected = {4: 1, 5: 10, 6: 1000, 9: 100}
    assert sorted(drawn) == [1, 2, 3, *expected]  # step 0 has no loss
    for step, mark in drawn.items():
        assert across(mark, "cx") == pytest.approx(100 * (step - 1) / 8, abs=0.01)
        ulp = expected.get(step)
        assert mark.attrib["class"] == ("dot" if ulp else "ring")
        assert float(mark.attrib["cy"]) == pytest.approx(height(ulp, 3) if ulp else EQUAL, abs=0.1)
    assert drawn[5].findtext("title") == "step 5: 1.0 and 1.0000011920928955, 10 ULP (1.19e-06)"
    assert drawn[2].findtext("title") == "step 2: 1.0 and 1.0, equal"
    lines = picture(parsed(parted()), "How far the losses are apart").findall("line")
    pins = [(e.attrib["x1"], e.attrib["y1"]) for e in lines if e.get("class") == "pin"]
    assert pins == [(drawn[n].attrib["cx"], drawn[n].attrib["cy"]) for n in expected]


def test_the_picture_has_scales() -> None:
    """Up stand powers of ten in ULP at their height; across, steps counted from the divergence."""
    drawn = picture(parsed(parted()), "How far the losses are apart")
    labels = [each for each in drawn.findall("text") if each.find("title") is None]
    up = {each.text: float(each.attrib["y"]) - 4 for each in labels if each.get("x") == "-8"}
    assert list(up) == ["1", "10", "100", "1e3", "equal"]
    assert (up["1"], up["1e3"], up["equal"]) == (BOTTOM, TOP, EQUAL)
    assert up["100"] == pytest.approx(height(100, 3), abs=0.1)
    steps = {e.text: across(e, "x") for e in labels if e.get("text-anchor") == "middle"}
    assert steps == {"-2": 0, "0": 25, "+2": 50, "+4": 75, "+6": 100}
    [mark] = [each for each in drawn.findall("line") if each.get("class") == "mark"]
    assert (mark.attrib["x1"], mark.attrib["x2"]) == ("25.00%", "25.00%")
    assert labels[-1].text == "steps after step 3"


def test_the_first_the_largest_and_the_last_distance_are_said() -> None:
    """The caption and the description of the picture give them in numbers."""
    body = parsed(parted())
    said = (
        "first 1 ULP (1.19e-07) at step 4; largest 1,000 ULP (1.19e-04) at step 6; "
        "last 100 ULP (1.19e-05) at step 9."
    )
    assert picture(body, "How far the losses are apart").findtext("desc") == said
    assert words(body.find(".//figcaption")) == f"In numbers: {said}"


def test_the_losses_stand_in_a_table_too() -> None:
    """Who does not see the picture reads every loss, to the last digit."""
    table = rows(parsed(parted()).find(".//details/table"))
    assert table[0] == ["step", "loss of a", "loss of b", "distance"]
    assert [row[0] for row in table[1:]] == ["1", "2", "3", "4", "5", "6", "9"]
    assert table[4] == ["4", "1.0", "1.0000001192092896", "1 ULP (1.19e-07)"]


def test_a_long_run_is_drawn_by_the_logarithm() -> None:
    """Past 1,000 steps early ones are wide and later ones close; the scale says so."""
    steps = [90, 100, 101, 110, 1100, 1_000_100]
    losses = [(s, hexed(1), hexed(1 if s <= 100 else 2)) for s in steps]
    body = parsed(parted(step=100, losses=losses))
    span = math.log(11) + math.log(1_000_001)
    for step, mark in dots(body).items():
        place = math.copysign(math.log(abs(step - 100) + 1), step - 100)
        assert across(mark, "cx") == pytest.approx(100 * (place + math.log(11)) / span, abs=0.01)
    drawn = picture(body, "How far the losses are apart")
    texts = [each.text for each in drawn.findall("text")]
    assert texts[-6:] == ["-10", "0", "+10", "+1e3", "+1e5", "steps after step 100, logarithmic"]


def test_a_divergence_without_a_loss_is_inside_of_the_picture() -> None:
    """The step at which they part is drawn where it is, between or beside those with a loss."""
    losses = [(20, hexed(1), hexed(2)), (25, hexed(1), hexed(2))]
    drawn = picture(parsed(parted(step=15, losses=losses)), "How far the losses are apart")
    [mark] = [each for each in drawn.findall("line") if each.get("class") == "mark"]
    assert mark.attrib["x1"] == "0.00%"
    assert [across(each, "cx") for each in drawn.findall("circle")] == [50, 100]


def test_one_point_is_drawn_in_the_middle() -> None:
    """A single step with a loss, the one at which they part, makes a picture."""
    body = parsed(parted(losses=[(3, hexed(1), hexed(2))]))
    assert across(dots(body)[3], "cx") == 50


def test_nan_and_infinities_have_their_place() -> None:
    """NaN against a number is a cross at the top, equal NaNs are equal; infinity is a number."""
    losses = [(3, "nan", "nan"), (4, "nan", hexed(1)), (5, "inf", "inf"), (6, "-inf", "inf")]
    body = parsed(parted(losses=losses))
    drawn = dots(body)
    assert [drawn[step].attrib["class"] for step in (3, 4, 5, 6)] == [
        "ring",
        "cross",
        "ring",
        "dot",
    ]
    assert float(drawn[4].attrib["y"]) == NO_NUMBER + 5
    assert "ULP of float32" in words(body.find(".//figure/p"))
    said = picture(body, "How far the losses are apart").findtext("desc")
    assert said is not None
    assert said.startswith("first NaN against a number at step 4; largest NaN against a number")
    labels = [each.text for each in picture(body, "How far the losses are apart").findall("text")]
    assert "NaN" in labels
    assert "NaN" not in words(section(parsed(parted()), "How the distance grows"))


def test_losses_of_64_bits_are_counted_in_their_own_ulp() -> None:
    """ULP are of float32 where it holds every loss, of float64 where it does not."""
    above = math.nextafter(1.0, 2.0)
    body = parsed(parted(losses=[(3, hexed(1), hexed(above)), (4, hexed(1e300), hexed(1))]))
    assert "1 ULP (2.22e-16)" in (dots(body)[3].findtext("title") or "")
    assert "ULP of float64" in words(body.find(".//figure/p"))
    assert "ULP of float32" in words(parsed(parted()).find(".//figure/p"))


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([(1, None, hexed(1)), (3, hexed(1), None)], "No step has a recorded loss of both."),
        ([(3, "nan", "nan")], "The recorded losses are equal: the difference is not in them."),
        ([], None),
    ],
)
def test_without_a_distance_there_is_a_sentence(losses: Any, told: str | None) -> None:
    """No losses, losses of one side or equal ones make no picture."""
    found = section(parsed(parted(losses=losses)), "How the distance grows")
    said = None if found is None else words(found)
    assert said == (told and f"How the distance grows {told}")


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**9), *2 * [st.none() | st.floats(width=64) | st.floats(width=32)]
        ),
        max_size=20,
        unique_by=lambda each: each[0],
    ),
    st.integers(0, 10**9),
)
def test_any_losses_make_a_page(losses: list[Any], step: int) -> None:
    """Whatever the losses and the step: a page, and every point of the picture inside of it."""
    texts = [(n, *(None if x is None else hexed(x) for x in both)) for n, *both in sorted(losses)]
    body = parsed(parted(step=step, losses=texts))
    for svg in body.iter("svg"):
        for each, name in itertools.product(svg.iter(), ("x", "cx", "x1", "x2", "width")):
            if "%" in each.get(name, ""):
                assert 0 <= across(each, name) <= 100
        for circle in svg.iter("circle"):
            assert TOP <= float(circle.attrib["cy"]) <= EQUAL


def test_leaves_stand_with_their_distances() -> None:
    """A leaf is named with its dtype, how many elements differ and by how much, if measured."""
    table = section(parsed(parted()), "What differs")
    assert table is not None
    assert rows(table.find("table")) == [
        ["leaf of gradients", "dtype", "elements", "farthest"],
        ["w", "float32", "4 of 20 elements differ", "by up to 7 ULP"],
        ["b", "not known", "not measured", "not measured"],
    ]
    keys = section(
        parsed(parted(distances={"w": Distance("key<fry>", 2, 1, None)})), "What differs"
    )
    assert keys is not None
    assert rows(keys.find("table"))[1] == ["w", "key<fry>", "1 of 2 keys differ", "-"]
    state = section(parsed(parted(stage=None)), "What differs")
    assert state is not None
    assert rows(state.find("table"))[0][0] == "leaf of the state"
    assert "no leaf can be named" in words(section(parsed(parted(leaves=())), "What differs"))
    assert section(parsed(parted(verdict="cannot be told")), "What differs") is None


def test_what_came_of_computing_it_again_is_said() -> None:
    """Each answer has its sign and its reason; that it was not tried is said too."""
    body = parsed(parted(recomputed=(REFUTED, Recomputed("cannot be told", "No such processor."))))
    again = section(body, "Computed again")
    assert again is not None
    assert [words(each) for each in again.iter("li")] == [
        "✗ a: refuted. Step 3 came out different.",
        "? b: cannot be told. No such processor.",
    ]
    assert again.find(".//code") is None
    assert "not computed again" in words(section(parsed(parted(recomputed=None)), "Computed again"))
    assert section(parsed(parted(recomputed=None, stage=None)), "Computed again") is None


def test_the_command_that_finds_the_operation_can_be_copied() -> None:
    """Where both were confirmed and an operation made the difference, the command is shown."""
    names = ("runs/a b", "runs/$(c)")
    again = section(parsed(parted(), names), "Computed again")
    assert again is not None
    command = "reproducibility trace 'runs/a b' --step 3 --against 'runs/$(c)'"
    assert again.findtext(".//code") == command
    for found in (parted(stage="batch"), parted(recomputed=(CONFIRMED, REFUTED))):
        again = section(parsed(found, names), "Computed again")
        assert again is not None
        assert again.find(".//code") is None


def test_differences_on_record_explain_and_are_no_verdict() -> None:
    """Settings and environments are listed beside the sentence that they decide nothing."""
    difference = Difference("xla_flags.x", None, "AVX", "changes bits", "Measured.")
    found = section(
        parsed(parted(settings={"seed": (7, None)}, environment=(difference,))),
        "Differences on record",
    )
    assert found is not None
    assert "An explanation is never a verdict" in words(found.find("p"))
    settings, around = map(rows, found.findall("table"))
    assert settings == [["setting", "a", "b"], ["seed", "7", "not set"]]
    assert around == [
        ["environment", "a", "b", "effect", "why"],
        ["xla_flags.x", "not set", "AVX", "changes bits", "Measured."],
    ]
    none = words(section(parsed(parted()), "Differences on record"))
    assert none.endswith("No difference of settings, environment or programs is on record.")


def test_notes_limit_the_answer() -> None:
    """What limits the answer has a section; without notes there is none."""
    found = section(
        parsed(parted(notes=("One is damaged.", "So is the other."))), "What limits the answer"
    )
    assert found is not None
    assert [words(each) for each in found.iter("li")] == ["One is damaged.", "So is the other."]
    assert section(parsed(parted()), "What limits the answer") is None


EVIL = "</td></style><script>alert(1)</script><img src='//x' onerror=\"y\"> & &amp;"


def test_what_comes_from_a_run_stays_text() -> None:
    """Markup in a name, value, reason or digest is shown as it is and never becomes markup."""
    found = parted(
        reason=EVIL,
        leaves=(EVIL, "w"),
        distances={EVIL: Distance(EVIL, 1, 1, 1)},
        recomputed=(Recomputed("confirmed", EVIL), CONFIRMED),
        digests=(EVIL, EVIL),
        settings={EVIL: (EVIL, EVIL)},
        notes=(EVIL,),
        environment=(Difference(EVIL, EVIL, EVIL, EVIL, EVIL),),  # type: ignore[arg-type]
    )
    body = parsed(found, (EVIL, EVIL))
    assert not {each.tag for each in body.iter()} & {"script", "img", "style"}
    assert words(body).count(EVIL) == 17
    head = report(found, names=(EVIL, EVIL)).partition("<body>")[0]
    assert "<script" not in head
    assert "<img" not in head


def test_the_page_needs_nothing_else() -> None:
    """It refers to nothing, allows itself no request and no script, and is small."""
    page = report(parted())
    assert not re.search(r"https?:|//|<script|<link|<img|\bsrc=|\bhref=|@import|@font-face", page)
    assert set(re.findall(r"url\([^)]*\)", page)) == {"url(#hatch)"}
    assert "Content-Security-Policy\" content=\"default-src 'none'; style-src" in page
    assert len(page) < 20_000


def test_the_page_can_be_read_without_the_pictures() -> None:
    """Pictures have a title and a description, cells a heading, and the page a language."""
    body = parsed(parted(settings={"seed": (7, 8)}))
    drawings = [each for each in body.iter("svg") if each.get("aria-hidden") != "true"]
    assert len(drawings) == 2
    for svg in drawings:
        assert svg.get("role") == "img"
        assert [each.tag for each in svg][:2] == ["title", "desc"]
        assert words(svg.find("desc"))
    for table in body.iter("table"):
        heads = [words(each) for each in table.iterfind("thead/tr/th[@scope='col']")]
        for row in table.iterfind("tbody/tr"):
            assert [each.get("data-head") for each in row[1:]] == heads[1:]
            assert row[0].get("scope") == "row"
    assert '<html lang="en">' in report(parted())


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_in_light_and_dark() -> None:
    """Every colour of text has a contrast of at least 4.5 to the ground, in both schemes."""
    schemes = [
        dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in STYLE.split("@media screen")
    ]
    light, dark = schemes
    assert light.keys() == dark.keys()
    assert luminance(light["ground"]) > 0.8 > 0.2 > luminance(dark["ground"])
    for scheme in schemes:
        for name in ("ink", "soft", "agreed", "parted", "unsure"):
            pair = sorted((luminance(scheme[name]), luminance(scheme["ground"])))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, name
    assert not set(re.findall(r"var\(--(\w+)\)", STYLE)) - {*light, "tone"}
    assert "#" not in STYLE.split("* {")[1].replace("url(#hatch)", "")  # no colour beside these


def test_the_same_comparison_gives_the_same_file(tmp_path: Path) -> None:
    """The file is the page, replaces what was there, and leaves nothing beside it."""
    path = tmp_path / "report.html"
    path.write_text("before")
    write_report(path, parted(), names=("x", "y"))
    first = path.read_bytes()
    write_report(str(path), parted(), names=("x", "y"))
    assert path.read_bytes() == first == report(parted(), names=("x", "y")).encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_no_text_can_be_written(tmp_path: Path) -> None:
    """The bytes of a path that are no UTF-8 are spelled out."""
    write_report(tmp_path / "report.html", parted(), names=("a\udcff", "b"))
    assert "a\\udcff" in (tmp_path / "report.html").read_text("utf-8")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """No directory, no report, and the message says what to do."""
    with pytest.raises(RunSaveError, match=r"Cannot write report\.html"):
        write_report(tmp_path / "nowhere" / "report.html", parted())


def test_two_ledgers_make_a_page(tmp_path: Path) -> None:
    """From two ledgers to the page: step, stage and leaf at which they part, and the losses."""
    for name, scale in (("a", 1), ("b", 2)):
        with Recorder(tmp_path / f"{name}.jsonl", run="r") as recorder:
            for step in range(5):
                late = scale if step >= 3 else 1
                tree = {"v": np.float32([1]), "w": np.float32([late])}
                recorder.record(step, loss=float(late), gradients=tree, params=tree)
    found = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert strip(found) == [("agreed", 0, 60), ("parted", 60, 40)]
    assert [(n, kind) for n, kind, _ in stages(found) if kind] == [
        ("gradients", "first"),
        ("params", "later"),
    ]
    table = section(parsed(found), "What differs")
    assert table is not None
    assert [row[0] for row in rows(table.find("table"))] == ["leaf of gradients", "w"]
    kinds = {step: mark.attrib["class"] for step, mark in dots(parsed(found)).items()}
    assert kinds == {0: "ring", 1: "ring", 2: "ring", 3: "dot", 4: "dot"}
