"""Search finds the page that answers, first, for what a reader would type."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

RULER, TREE, SUM = "explorables/ulp_ruler/", "explorables/key_tree/", "explorables/sum_order/"

# What a reader types, and the page that answers; a section of that page is as good.
QUESTIONS = {
    "my run does not repeat": "reference/my_run_does_not_repeat/",
    "loss is different every run": "reference/my_run_does_not_repeat/",
    "nondeterministic training": "reference/my_run_does_not_repeat/",
    "what does reproducible mean": "fundamentals/reproducibility_basics/",
    "bit for bit": "fundamentals/reproducibility_basics/",
    "jax random seed": "fundamentals/jax_prng_tutorial/",
    "numpy global state": "fundamentals/jax_prng_tutorial/",
    "split or fold_in": "fundamentals/jax_prng_tutorial/",
    "key reuse": "fundamentals/jax_prng_tutorial/",
    "key pattern": "fundamentals/prng_pattern/",
    "named streams": "fundamentals/prng_pattern/",
    "dropout": "components/model_explained/",
    "flax nnx": "components/model_explained/",
    "shuffle data deterministic": "components/data_explained/",
    "grain": "components/data_explained/",
    "what to save in a checkpoint": "components/checkpoint_explained/",
    "orbax": "components/checkpoint_explained/",
    "damaged checkpoint": "components/checkpoint_explained/",
    "hash parameters": "components/hashing_explained/",
    "sha-256": "components/hashing_explained/",
    "resume training": "workflow/complete_flow/",
    "best practices": "workflow/pitfalls_and_best_practices/",
    "exit codes": "guide/using_the_project/",
    "compare two runs": "guide/flight_recorder/",
    "which operation differs": "guide/trace/",
    "multiple devices": "scale/scaling_out/",
    "slurm": "scale/on_a_cluster/",
    "pytest fixture": "guide/testing_your_code/",
    "ci tests": "guide/testing_your_code/",
    "equinox": "guide/bring_your_own_state/",
    "ulp": RULER,
    "floating point order of a sum": SUM,
    "key tree": TREE,
    "offline": "reference/take_away/",
    "colab": "reference/take_away/",
    "tree_digest": "reference/api/same/",
}


def first_result(page: Page, question: str) -> str:
    """Type a question and return where the first result leads, without the marks of the search."""
    meta = page.locator(".md-search-result__meta")
    for text, said in (("qqqqqq", "No"), (question, r"\d+")):
        box = page.locator("[data-md-component=search-query]")
        box.fill(text)
        box.press("End")  # the search listens to keys
        expect(meta).to_have_text(re.compile(rf"^\s*{said} matching"))
    link = page.locator(".md-search-result__item a").first
    return (link.get_attribute("href") or "").partition("?")[0].partition("#")[0]


def test_search_answers(visit: Callable[..., Page], address: str) -> None:
    """The first result of each question is the page that answers it."""
    page = visit("")
    page.keyboard.press("/")
    found = {question: first_result(page, question).removeprefix(address) for question in QUESTIONS}
    assert found == QUESTIONS
    assert len(QUESTIONS) >= 30
