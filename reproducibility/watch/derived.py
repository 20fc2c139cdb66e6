"""Keys of a program without their values: each is what it was derived from, and how.

The rule: two keys with one number are equal whatever the inputs are; of two with other numbers
nothing is known.
Chapter: docs/fundamentals/jax_prng_tutorial.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .late import np

MOST_KEYS = 4096  # keys of an array that are told apart
SIGNED = "signed"  # of an argument that has integers with a sign, and no keys
Ids = Any  # an array of numbers, or None if nothing is known of it


class Derived:
    """Numbers for keys, words and integers; what is derived alike has the same one."""

    def __init__(self) -> None:
        self.terms: list[tuple[Any, ...]] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def number(self, *term: Any) -> int:
        """Return the number of a term: a word, and what it is of."""
        found = self._numbers.get(term)
        if found is None:
            found = self._numbers[term] = len(self.terms)
            self.terms.append(term)
        return found

    def unknown(self) -> int:
        """Return a number of its own."""
        return self.number("unknown", len(self.terms))

    def constant(self, value: Any) -> int:
        """Return the number of an integer."""
        return self.number("constant", int(value))

    def of_input(self, place: int, shape: Sequence[int], keys: str) -> Ids:
        """Return the numbers of an argument: of the keys in it, or of its words."""
        size = int(np.prod(shape, dtype=int))
        if size > MOST_KEYS:
            return None
        found = [self.number("input", place, i, keys) for i in range(size)]
        return np.array(found, dtype=int).reshape(shape)

    def of_constant(self, value: Any) -> Ids:
        """Return the numbers of integers that are known, if they are few."""
        if getattr(value, "size", 0) > MOST_KEYS:  # of JAX it may be large, and on a device
            return None
        value = np.asarray(value)
        if value.size > MOST_KEYS or value.dtype.kind not in "iub":
            return None
        found = [self.constant(each) for each in value.ravel().tolist()]
        return np.array(found, dtype=int).reshape(value.shape)

    def step_of(self, begun: Ids, here: Ids, then: Ids) -> tuple[int, int, int] | None:
        """Return the number of a counter, where it begins and by how much it grows."""
        if any(each is None or each.size != 1 for each in (begun, here, then)):
            return None
        first, leaf = self.terms[int(begun.flat[0])], int(here.flat[0])
        term = self.terms[int(then.flat[0])]
        if first[0] != "constant" or term[0] != "add" or leaf not in term[1:]:
            return None
        other = [self.terms[each] for each in term[1:] if each != leaf]
        return (leaf, first[1], other[0][1]) if other and other[0][0] == "constant" else None

    def limit_of(self, condition: Any, consts: Sequence[Ids]) -> tuple[int, int] | None:
        """Return which of what a loop carries has to stay below which number, if that is all."""
        if [eqn.primitive.name for eqn in condition.eqns] != ["lt"]:
            return None
        below, limit = condition.eqns[0].invars
        carried = condition.invars[len(consts) :]
        place = next((place for place, var in enumerate(carried) if var is below), None)
        known = dict(zip(condition.invars, consts))  # noqa: B905 (Python 3.10)
        ids = self.of_constant(limit.val) if hasattr(limit, "val") else known.get(limit)
        if place is None or ids is None or ids.size != 1:
            return None
        term = self.terms[int(ids.flat[0])]
        return (place, term[1]) if term[0] == "constant" else None

    def leaves(self, number: int, seen: dict[int, set[int]]) -> set[int]:
        """Return the terms that a term is made of, but for numbers."""
        known = seen.get(number)
        if known is None:
            parts = inner(self.terms[number])
            is_leaf = not parts and self.terms[number][0] != "constant"
            known = {number} if is_leaf else set()
            for each in parts:
                known = known | self.leaves(each, seen)
            seen[number] = known
        return known

    def replaced(self, number: int, by: dict[int, int]) -> int:
        """Return a term with others in place of some of those that it is made of."""
        if number in by:
            return by[number]
        term = self.terms[number]
        parts = inner(term)
        if not parts:
            return number
        new = [self.replaced(each, by) for each in parts]
        return self.apply(term[0], new, term[1 + len(parts) :])

    def apply(self, word: str, parts: Sequence[int], rest: Sequence[Any] = ()) -> int:
        """Return the term of some others; integers that are known are computed."""
        known = [self.terms[each] for each in parts]
        if word in OF_INTEGERS and all(each[0] == "constant" for each in known):
            return self.constant(OF_INTEGERS[word](*(each[1] for each in known)))
        return self.number(word, *parts, *rest)

    def key_of_words(self, words: Sequence[int], kind: str) -> int:
        """Return the key that has these words."""
        terms = [self.terms[each] for each in words]
        are_words = all(each[0] == "word" and each[2] == i for i, each in enumerate(terms))
        if are_words and len({each[1] for each in terms}) == 1:
            return int(terms[0][1])
        return self.number("key", *words, kind)

    def to_json(self, numbers: Sequence[int]) -> tuple[list[list[Any]], dict[int, int]]:
        """Return the terms that some are made of, innermost first, and where each of them is."""
        wanted = set(numbers)
        for number in range(max(wanted, default=-1), -1, -1):  # what a term is made of is older
            if number in wanted:
                wanted.update(inner(self.terms[number]))
        places = {number: place for place, number in enumerate(sorted(wanted))}
        found: list[list[Any]] = []
        for number in places:
            term = self.terms[number]
            parts = inner(term)
            found.append([term[0], [places[each] for each in parts], *term[1 + len(parts) :]])
        return found, places


OF_INTEGERS: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "lt": lambda a, b: int(a < b),
    "select_n": lambda which, *cases: cases[which],
}
_OF = {  # how many terms a term is made of
    **{"fold": 2, "split": 1, "word": 1, "seed": 1},
    **{"add": 2, "sub": 2, "mul": 2, "lt": 2, "select_n": 3},
}


def inner(term: Sequence[Any]) -> Sequence[int]:
    """Return the terms that a term is made of."""
    if term[0] in ("key", "pick"):
        return term[1:-1]
    return term[1 : 1 + _OF.get(term[0], 0)]


def moved(name: str, params: dict[str, Any], ids: list[Ids]) -> Any:
    """Return what an operation makes that only moves what it is given."""
    one: Any = ids[0] if ids else None
    if name == "reshape":
        return one.reshape(params["new_sizes"])
    if name == "squeeze":
        return np.squeeze(one, tuple(params["dimensions"]))
    if name == "expand_dims":
        return np.expand_dims(one, tuple(params["dimensions"]))
    if name == "slice":
        strides = params["strides"] or [1] * one.ndim
        bounds = zip(params["start_indices"], params["limit_indices"], strides)  # noqa: B905
        return one[tuple(slice(*each) for each in bounds)]
    if name == "unstack":
        return list(np.moveaxis(one, params["axis"], 0))
    if name == "broadcast_in_dim":
        shape = [1] * len(params["shape"])
        for size, axis in zip(one.shape, params["broadcast_dimensions"]):  # noqa: B905
            shape[axis] = size
        return np.broadcast_to(one.reshape(shape), params["shape"])
    if name == "concatenate":
        return np.concatenate(ids, params["dimension"])
    if name == "transpose":
        return np.transpose(one, params["permutation"])
    if name == "convert_element_type":
        to = np.dtype(params["new_dtype"])
        return one if to.kind in "iu" and to.itemsize >= 4 else None  # a narrow one cuts off
    return None
