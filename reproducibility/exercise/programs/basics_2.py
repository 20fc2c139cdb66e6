"""The embedding of a word changes from process to process.

Observed: the rows are the same within a process. In the next process each word has the row of a
different word, though the seed is the same.
Right: `embed(seed, text)` returns the same rows in each process; a word has one row, wherever it
stands in the text, and no two words share one.
"""

import numpy as np


def embed(seed, text):
    """Return a row of four numbers for each word of a text."""
    words = text.split()
    vocabulary = {word: i for i, word in enumerate(set(words))}
    table = np.random.default_rng(seed).normal(size=(len(vocabulary), 4))
    return np.stack([table[vocabulary[word]] for word in words])


if __name__ == "__main__":
    print(embed(0, "the same words in the same order"))
