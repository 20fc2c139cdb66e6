# ---
# jupyter:
#   description: Resume a training without its key, without its optimiser or one step off. The loss
#     looks right in each case; the digest finds all three.
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a resumed run forgets
#
# A run of 120 updates is interrupted after 50 and resumed four times: once as it should be, and
# three times with one thing missing. How long does it take to notice, and who notices first: the
# loss or the digest?
#
# This page was computed when the site was built; its numbers belong to the machine that built it.
# The questions, and the answers of the digest, do not.
# The page behind it: [the whole run](../../workflow/complete_flow/).

# %% [markdown]
# ## The run that is interrupted
#
# `Programs` holds the compiled programs of the package's own training loop: shuffled digits, two
# hidden layers, dropout, Adam. The loop is three lines, so that we can look at every loss.

# %%
import dataclasses

import jax
import jax.numpy as jnp

from reproducibility import Programs, TrainConfig, leaf_digests, root_key, tree_digest

STEPS, STOP = 120, 50
programs = Programs(TrainConfig(seed=7, dataset="digits", shards=2).identity)


def go_on(state, updates):
    """Do so many updates; return the state and the loss of each batch."""
    state, losses = jax.tree.map(jnp.copy, state), []  # the first step takes over the memory
    for _ in range(updates):
        state, loss, _ = programs.step(state, programs.plan(state))
        losses.append(loss)
    return state, [float(loss) for loss in losses]


saved, before = go_on(programs.start, STOP)
whole, after = go_on(saved, STEPS - STOP)
print(f"loss at the start {before[0]:.2f}, at the interruption {before[-1]:.2f}")

# %% [markdown]
# ## Four ways to resume
#
# What a checkpoint must hold is the step, the parameters, the optimiser's state and the root key.
# Each of the three faults is one that a training program has had: a dropout key reset at every
# preemption, an optimiser that was not restored, a checkpoint whose number was off by one.

# %%
arms = {
    "faithful": saved,
    "without its key": dataclasses.replace(saved, key=root_key(0)),
    "without its optimiser": dataclasses.replace(
        saved, opt_state=jax.tree.map(jnp.zeros_like, saved.opt_state)
    ),
    "one step off": dataclasses.replace(saved, step=saved.step + 1),
}
ended = {name: go_on(state, STEPS - STOP) for name, state in arms.items()}

# %% [markdown]
# ## What the losses say

# %% tags=["hide_code"]
import matplotlib.pyplot as plt

STYLES = {  # lines that differ without their colour
    "faithful": ("C0", "-", "o"),
    "without its key": ("C1", "-", "s"),
    "without its optimiser": ("C2", "--", "^"),
    "one step off": ("C3", ":", "D"),
}
resumed = range(STOP + 1, STEPS + 1)

figure, ax = plt.subplots()
ax.plot(range(1, STOP + 1), before, color="gray", linewidth=1.2, label="before")
for name, (colour, line, _) in STYLES.items():
    ax.plot(resumed, ended[name][1], color=colour, linestyle=line, label=name)
ax.axvline(STOP, color="gray", linewidth=0.8, linestyle=(0, (2, 3)))
ax.set_title("The losses of the four lie close together", gid="title")
ax.set_xlabel("completed updates")
ax.set_ylabel("loss of the batch")
ax.legend()
plt.show()

# %% [markdown]
# All four learn, and no curve stands out. The masks of the run without its key are as random as the
# right ones, they are only not *the* right ones. The batches of the run that is one step off are
# good batches. Adam without its memory soon builds another. Without
# the uninterrupted run beside it, no threshold on a loss finds that.
#
# ## What the difference says
#
# The same losses, as a distance from the run that never stopped. Zero has no place on a
# logarithmic axis, so the faithful run is missing from this picture: its distance is zero at every
# update.

# %% tags=["hide_code"]
figure, ax = plt.subplots()
for name, (colour, line, marker) in STYLES.items():
    points = [
        (step, abs(got - expected))
        for step, got, expected in zip(resumed, ended[name][1], after, strict=True)
        if got != expected
    ]
    if points:
        ax.plot(
            *zip(*points, strict=True),
            color=colour,
            linestyle=line,
            linewidth=1.2,
            marker=marker,
            markersize=4,
            markevery=6,
            label=name,
        )
ax.set_title("How far each loss is from the whole run's", gid="title")
ax.set_yscale("log")
ax.set_xlabel("completed updates")
ax.set_ylabel("|loss - loss of the whole run|")
ax.legend(loc="lower right")
plt.show()

# %%
rows = []
for name, (_, losses) in ended.items():
    same = [got == expected for got, expected in zip(losses, after, strict=True)]
    first = "never" if all(same) else f"at update {STOP + 1 + same.index(False)}"
    rows.append(f"{name:22} loss first differs: {first}")
print("\n".join(rows))

# %% [markdown]
# The first loss after the resume is computed from parameters that were restored. Without the key
# it differs at once, because another mask was drawn; with the step off, because another batch was
# taken. Without the optimiser it is still right: the fault enters with the first *update*, and
# shows one step later. With this fault, a test that looks at the first loss after a
# resume passes.
#
# ## What the digest says

# %%
expected, rows = leaf_digests(whole), []
for name, (state, _) in ended.items():
    found = leaf_digests(state)
    parts = sorted({leaf.partition(".")[0] for leaf in expected if found[leaf] != expected[leaf]})
    same = tree_digest(state) == tree_digest(whole)
    rows.append(f"{name:22} {'same' if same else 'different':10} {', '.join(parts)}".rstrip())
print("\n".join(rows))

# %% [markdown]
# One comparison, no threshold, and it names what differs. The faithful run has every bit of the
# run that never stopped; each of the others is found.
#
# ## Things to try with a resumed run
#
# * Set `dropout=0.0` in the configuration. Which of the three faults does the loss no longer see at
#   all, and what does that say about a resume test that is run without dropout?
# * Move `STOP` to 1. Does the optimiser's state still matter?
# * Give the run without its key the parameters' digest only: `tree_digest(state.params)`. Is that
#   enough here? And right after the restore?
#
# Next: [the same proof in a test suite of your own](../../guide/testing_your_code/).
