"""Search finds the page and the section that answer, first, for what a reader would type."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

SYMPTOMS = "reference/my_run_does_not_repeat/"
RESUMED = "reference/my_resumed_run_differs/"
MACHINES = "reference/two_machines_disagree/"
BASICS = "fundamentals/reproducibility_basics/"
KEYS = "fundamentals/jax_prng_tutorial/"
PATTERN = "fundamentals/prng_pattern/"
MODEL = "components/model_explained/"
DATA = "components/data_explained/"
CHECKPOINTS = "components/checkpoint_explained/"
DIGESTS = "components/hashing_explained/"
PITFALLS = "workflow/pitfalls_and_best_practices/"
STATE = "guide/bring_your_own_state/"
TESTS = "guide/testing_your_code/"
PYTORCH = "guide/from_pytorch/"
COMPARING = "guide/recipes/"
TRAINING = "guide/recipes_training/"

# What a reader types, and the page that answers, or the section of it that stands first below it.
QUESTIONS = {
    "my run does not repeat": SYMPTOMS,
    "loss is different every run": f"{SYMPTOMS}#same-seed-different-loss",
    "nondeterministic training": SYMPTOMS,
    "what does reproducible mean": BASICS,
    "bit for bit": BASICS,
    "jax random seed": KEYS,
    "numpy global state": KEYS,
    "split or fold_in": f"{KEYS}#two-ways-to-make-a-new-key",
    "key reuse": f"{KEYS}#typed-keys-and-the-checker",
    "key pattern": PATTERN,
    "named streams": PATTERN,
    "dropout": MODEL,
    "flax nnx": MODEL,
    "shuffle data deterministic": DATA,
    "grain": DATA,
    "what to save in a checkpoint": f"{CHECKPOINTS}#the-state-is-what-the-next-step-reads",
    "orbax": CHECKPOINTS,
    "damaged checkpoint": CHECKPOINTS,
    "hash parameters": DIGESTS,
    "sha-256": DIGESTS,
    "resume training": RESUMED,
    "best practices": f"{PITFALLS}#best-practices",
    "exit codes": "guide/using_the_project/#exit-codes",
    "compare two runs": "guide/flight_recorder/",
    "which operation differs": "guide/trace/",
    "multiple devices": "scale/scaling_out/",
    "slurm": "scale/on_a_cluster/#slurm",
    "pytest fixture": f"{TESTS}#two-fixtures",
    "ci tests": f"{TESTS}#in-ci",
    "equinox": f"{STATE}#an-equinox-module",
    "ulp": "explorables/ulp_ruler/",
    "floating point order of a sum": "explorables/sum_order/",
    "key tree": "explorables/key_tree/",
    "offline": "reference/take_away/",
    "colab": "reference/take_away/#in-colab",
    "tree_digest": "reference/api/same/#reproducibility.tree_digest",
    "torch.manual_seed": f"{PYTORCH}#torchmanual_seed",
    "determinism": BASICS,
    "seed everything": "guide/seed_everything/",
    "TPU bf16": f"{MACHINES}#fewer-digits",
    "pmap different seeds": f"{TRAINING}#several-seeds",
    "wandb": f"{COMPARING}#experiment-trackers",
    "NaN only sometimes": f"{MACHINES}#nan-on-one-machine-only",
    "deterministic flags slow": f"{BASICS}#on-a-gpu-rung-2-has-a-price",
    "loss spike after resume": f"{RESUMED}#the-loss-jumps-after-a-resume",
    "dropout same mask every step": f"{SYMPTOMS}#dropout-masks-repeat",
    "hash checkpoint": f"{DIGESTS}#sealed-with-every-checkpoint",
    "shuffle after restart": f"{RESUMED}#the-data-is-shuffled-differently-after-a-restart",
    "cudnn benchmark": f"{PYTORCH}#use_deterministic_algorithms-cudnn-and-cublas_workspace_config",
    "worker_init_fn": f"{PYTORCH}#worker_init_fn-and-the-seeds-of-dataloader-workers",
    "DistributedSampler": f"{PYTORCH}#distributedsampler-and-set_epoch",
    "PYTHONHASHSEED": f"{PITFALLS}#what-python-orders-for-you",
    "number of threads": f"{MACHINES}#different-on-another-machine-or-after-an-upgrade",
    "gradient accumulation": f"{TRAINING}#gradient-accumulation",
    "mixed precision": f"{TRAINING}#mixed-precision",
    "evaluation changes training": f"{SYMPTOMS}#evaluating-or-logging-more-often-changes-the-run",
    "same seed different results on gpu": f"{MACHINES}#different-every-time-on-a-gpu",
    "xla_gpu_deterministic_ops": "guide/accelerators/#flags",
    "different seeds same result": f"{SYMPTOMS}#different-seeds-give-the-same-result",
    "preempted": f"{RESUMED}#different-only-after-resuming",
    "corrupted checkpoint": CHECKPOINTS,
    "compare two checkpoints": f"{STATE}#compare-two-runs-that-recorded-nothing",
    "cannot reproduce paper": f"{COMPARING}#a-colleagues-run",
    "install": "#install",
    "safetensors": f"{STATE}#take-out-what-is-in-a-checkpoint",
    "np.random inside jit": f"{SYMPTOMS}#the-same-in-eager-different-under-jit",
    "PRNGKey or key": f"{KEYS}#typed-keys-and-the-checker",
    "batch size changes result": f"{SYMPTOMS}#the-result-depends-on-the-chunk-or-vmap-width",
    "different after upgrading jax": f"{MACHINES}#different-on-another-machine-or-after-an-upgrade",
    "tensorboard": f"{COMPARING}#experiment-trackers",
    "optimizer state lost": f"{RESUMED}#different-only-after-resuming",
    "tied weights": f"{STATE}#tied-weights",
    "dataloader workers order": f"{DATA}#worker-processes",
    "replicas out of sync": f"{MACHINES}#copies-of-a-replicated-array-differ",
    "notebook": "reference/take_away/#a-notebook",
    "flaky loss 1 in 10 runs": f"{SYMPTOMS}#it-differs-only-now-and-then",
    "hidden inputs environment variables": "guide/hidden_inputs/",
    "autotune cache kernels": "guide/accelerators/#autotuning",
    "exact resume test": f"{TESTS}#resumed-and-then-forgetful",
    "two runs no logs": f"{MACHINES}#no-recorder-was-on",
    "golden value fails in ci": f"{MACHINES}#a-golden-digest-fails-on-another-runner",
}


def first_result(page: Page, question: str) -> list[str]:
    """Type a question; return where the first result leads, and the first section shown with it."""
    meta = page.locator(".md-search-result__meta")
    for text, said in (("qqqqqq", "No"), (question, r"\d+")):
        box = page.locator("[data-md-component=search-query]")
        box.fill(text)
        box.press("End")  # the search listens to keys
        expect(meta).to_have_text(re.compile(rf"^\s*{said} matching"))
    first = page.locator(".md-search-result__item").first
    links: list[str] = first.locator("> a").evaluate_all("links => links.map(link => link.href)")
    return [re.sub(r"\?h=[^#]*", "", link) for link in links[:2]]  # without the marks of the search


def test_search_answers(visit: Callable[..., Page], address: str) -> None:
    """The first result of each question is the page that answers it, with the section on top."""
    page = visit("")
    page.keyboard.press("/")
    found = {}
    for question, wanted in QUESTIONS.items():
        result = [link.removeprefix(address) for link in first_result(page, question)]
        found[question] = result[-1] if "#" in wanted else result[0]
    assert found == QUESTIONS
    assert len(QUESTIONS) >= 76
