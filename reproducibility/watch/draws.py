"""Which keys does a program draw from, and from which more than once?

The rule: a draw counts where its numbers are drawn (`random_bits`, `random_gamma`), not where a key
is split or folded. What is computed a second time on purpose (`jax.checkpoint`), and what only one
of two branches does, is drawn once.
Chapter: docs/fundamentals/jax_prng_tutorial.md
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from .derived import MOST_KEYS, SIGNED, Derived, Ids, moved
from .late import np
from .source import is_of_library, line_of_trace

NESTED = 50  # functions inside of each other
# Parameters that hold what a call does, and how many of its first arguments that does not take.
_INSIDE = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_SAME = ("copy", "copy_p", "optimization_barrier", "sharding_constraint", "device_put", "pvary")
_ALONE = ("threefry2x32", "rng_bit_generator")  # by itself, a part of a draw outside of `jit`
_INTEGER = ("add", "sub", "mul", "lt", "select_n")


class Draw(NamedTuple):
    """Numbers are drawn from a key."""

    key: int
    kind: str
    line: tuple[str, int, str] | None
    branches: tuple[tuple[int, int], ...]  # which condition, and which of its branches
    turns: int  # how often with this very key: turns of a loop; 2 if that is not known
    again: int  # how often what it stands in is computed again for a gradient, one in the other


class Draws:
    """What a program draws."""

    def __init__(self, closed: Any) -> None:
        self.derived = Derived()
        self.found: list[Draw] = []
        self.unknown = 0  # draws from keys of which nothing is known
        self._silent = 0
        jaxpr = getattr(closed, "jaxpr", closed)
        self.arguments = len(jaxpr.invars)
        given = [
            self.derived.of_input(place, _axes(var), _keys(var)) if _may_be_key(var) else None
            for place, var in enumerate(jaxpr.invars)
        ]
        where = _Where(
            None, (), is_of_library(_about(jaxpr))
        )  # a library's: the call's line counts
        self._walk(jaxpr, getattr(closed, "consts", ()), given, where, 0)
        if [eqn.primitive.name in _ALONE for eqn in jaxpr.eqns] == [True]:
            self.unknown += 1

    def _walk(
        self, jaxpr: Any, consts: Sequence[Any], given: Sequence[Ids], where: _Where, depth: int
    ) -> list[Ids]:
        """Walk through a program, and return what is known of its results."""
        env: dict[Any, Ids] = {}
        for var, value in zip(jaxpr.constvars, consts):  # noqa: B905 (Python 3.10)
            env[var] = self._of_value(value)
        env.update(zip(jaxpr.invars, given))  # noqa: B905 (Python 3.10)

        def read(atom: Any) -> Ids:
            return self._of_value(atom.val) if hasattr(atom, "val") else env.get(atom)

        for eqn in jaxpr.eqns:
            ids = [read(atom) for atom in eqn.invars]
            at = (
                where
                if where.fixed
                else where._replace(line=line_of_trace(eqn.source_info.traceback) or where.line)
            )
            try:
                found = self._equation(eqn, ids, at, depth)
            except Exception:  # of an operation of another version: nothing is known of it
                found = None
                if not self._silent and _may_draw(eqn):
                    self.unknown += 1
            results = found or [None] * len(eqn.outvars)
            for var, value in zip(eqn.outvars, results):  # noqa: B905 (Python 3.10)
                if (
                    value is None
                    and _may_be_key(var)
                    and np.prod(_axes(var), dtype=int) <= MOST_KEYS
                ):
                    value = np.empty(_axes(var), int)
                    value.flat = [self.derived.unknown() for _ in range(value.size)]
                env[var] = value
        return [read(atom) for atom in jaxpr.outvars]

    def _fresh_of(self, var: Any) -> Ids:
        """Return what is known of a variable of which nothing is."""
        if not _may_be_key(var) or np.prod(_axes(var), dtype=int) > MOST_KEYS:
            return None
        return self._fresh(np.empty(_axes(var), int))

    def _of_value(self, value: Any) -> Ids:
        """Return what is known of a constant; the words of a key are read."""
        base = getattr(value, "_base_array", None)
        if base is None or base.size > MOST_KEYS:
            return self.derived.of_constant(value) if base is None else None
        words = self.derived.of_constant(base)
        kind = _kind_of_keys(value.dtype)
        rows = words.reshape(-1, words.shape[-1])
        keys = [self.derived.key_of_words(row.tolist(), kind) for row in rows]
        return np.array(keys, int).reshape(value.shape)

    def _equation(self, eqn: Any, ids: list[Ids], where: _Where, depth: int) -> list[Ids] | None:
        name, params = eqn.primitive.name, eqn.params
        if name in ("random_bits", "random_gamma"):
            self._draw(ids[0], name, where)
            return None
        if name == "scan":
            return self._scan(eqn, ids, where, depth)
        if name == "while":
            return self._while(eqn, ids, where, depth)
        if name == "cond":
            return self._cond(eqn, ids, where, depth)
        inside = next((params[each] for each in _INSIDE if each in params), None)
        if inside is not None and depth < NESTED:
            return self._call(inside, ids, where, depth, again=bool(params.get("differentiated")))
        if any(each is None for each in ids):
            return None
        found = moved(name, params, ids) if name not in _SAME else ids[0]
        return self._derive(eqn, ids) if found is None else _as_list(found)

    def _call(
        self, inside: Any, ids: list[Ids], where: _Where, depth: int, *, again: bool
    ) -> list[Ids] | None:
        jaxpr = getattr(inside, "jaxpr", inside)
        if len(jaxpr.invars) != len(ids):
            ids = [None] * len(jaxpr.invars)
        # JAX traces a function of its own once: its lines are those of whoever called it first.
        fixed = where.fixed or is_of_library(_about(jaxpr))
        where = where._replace(fixed=fixed, again=where.again + again)
        return self._walk(jaxpr, getattr(inside, "consts", ()), ids, where, depth + 1)

    def _draw(self, ids: Ids, kind: str, where: _Where) -> None:
        if self._silent:
            return
        if ids is None:
            self.unknown += 1
            return
        for key in ids.reshape(-1).tolist():
            for one, turns in self._in_turns(key, where):
                draw = Draw(one, kind, where.line, where.branches, turns, where.again)
                self.found += [draw] * (turns > 0)

    def _in_turns(self, key: int, where: _Where) -> list[tuple[int, int]]:
        """Return the keys that a key inside of loops is, and how often each of them."""
        found = [(key, 1)]
        for loop in reversed(where.loops):
            next_: list[tuple[int, int]] = []
            for one, turns in found:
                leaves = self.derived.leaves(one, {})
                inside = {each for each in leaves if each >= loop.begin}
                if not inside:
                    next_.append((one, turns * loop.turns))
                elif inside <= set(loop.rows) and loop.turns * len(found) <= MOST_KEYS:
                    for turn in range(loop.turns):
                        by = {leaf: loop.rows[leaf][turn] for leaf in inside}
                        next_.append((self.derived.replaced(one, by), turns))
                else:
                    next_.append((one, turns))
            found = next_
        return found

    def _scan(self, eqn: Any, ids: list[Ids], where: _Where, depth: int) -> list[Ids] | None:
        params, body = eqn.params, eqn.params["jaxpr"]
        if "ft_in" in params:
            sizes = [len(part) for part in params["ft_in"].unpack()]
        else:
            sizes = [params["num_consts"], params["num_carry"]]
        consts, carry = ids[: sizes[0]], ids[sizes[0] : sizes[0] + sizes[1]]
        xs, length = ids[sizes[0] + sizes[1] :], params["length"]
        begin = len(self.derived.terms)
        rows: dict[int, list[int]] = {}
        given: list[Ids] = []
        for value in xs:
            if value is None:
                given.append(None)
                continue
            each = self._fresh(value[0])
            order = value[::-1] if params.get("reverse") else value
            for leaf, column in zip(each.reshape(-1).tolist(), order.reshape(length, -1).T):  # noqa: B905
                rows[leaf] = column.tolist()
            given.append(each)
        loop = _Loop(begin, length, rows)
        return self._turns(body, consts, carry, given, loop, where, depth)[: sizes[1]] + [
            None for _ in eqn.outvars[sizes[1] :]
        ]

    def _while(self, eqn: Any, ids: list[Ids], where: _Where, depth: int) -> list[Ids] | None:
        first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        consts, carry = ids[first : first + second], ids[first + second :]
        loop = _Loop(len(self.derived.terms), 2, {})
        asked = where._replace(loops=(*where.loops, loop))
        unknown = [self._fresh(each) for each in carry]
        self._call(eqn.params["cond_jaxpr"], [*ids[:first], *unknown], asked, depth, again=False)
        until = self.derived.limit_of(eqn.params["cond_jaxpr"].jaxpr, ids[:first])
        return self._turns(eqn.params["body_jaxpr"], consts, carry, [], loop, where, depth, until)

    def _turns(
        self,
        body: Any,
        consts: list[Ids],
        carry: list[Ids],
        xs: list[Ids],
        loop: _Loop,
        where: _Where,
        depth: int,
        until: tuple[int, int] | None = None,
    ) -> list[Ids]:
        """Walk through a turn of a loop; what it leaves as it was is known in each of them."""
        jaxpr, values = getattr(body, "jaxpr", body), getattr(body, "consts", ())
        fresh = [self._fresh(each) for each in carry]
        self._silent += 1
        after = self._walk(jaxpr, values, [*consts, *fresh, *xs], where, depth + 1)
        self._silent -= 1
        if until is not None:
            place, limit = until
            step = self.derived.step_of(carry[place], fresh[place], after[place])
            if step is not None and step[2] > 0:  # it turns as often as that
                loop = loop._replace(turns=max(0, -((step[1] - limit) // step[2])))
        given, results = [], []
        for begun, here, then in zip(carry, fresh, after):  # noqa: B905 (Python 3.10)
            stays = begun is not None and then is not None and (here == then).all()
            given.append(begun if stays else here)
            results.append(begun if stays else None)
            step = None if stays else self.derived.step_of(begun, here, then)
            if step is not None and 2 < loop.turns <= MOST_KEYS:
                leaf, first, by = step
                loop.rows[leaf] = [self.derived.constant(first + by * i) for i in range(loop.turns)]
        inner = where._replace(loops=(*where.loops, loop))
        if depth < NESTED:
            self._walk(jaxpr, values, [*consts, *given, *xs], inner, depth + 1)
        return results

    def _fresh(self, value: Ids) -> Ids:
        if value is None:
            return None
        found = np.empty(value.shape, int)
        found.flat = [self.derived.unknown() for _ in range(found.size)]
        return found

    def _cond(self, eqn: Any, ids: list[Ids], where: _Where, depth: int) -> list[Ids]:
        found, here = [], self.derived.unknown()
        for place, branch in enumerate(eqn.params["branches"]):
            one = where._replace(branches=(*where.branches, (here, place)))
            found.append(self._call(branch, ids[1:], one, depth, again=False) or [])
        return [
            part[0] if all(_equal(part[0], each) for each in part) else None
            for part in zip(*found)  # noqa: B905 (Python 3.10)
        ]

    def _derive(self, eqn: Any, ids: list[Ids]) -> list[Ids] | None:
        """Return keys that are made of others, and integers that are made of others."""
        name, params, derived = eqn.primitive.name, eqn.params, self.derived
        found: Any
        if name == "random_split":
            shape, threefry = tuple(params["shape"]), _has_simple_splits(eqn.invars[0].aval.dtype)
            size = int(np.prod(shape, dtype=int))
            found = np.empty((*ids[0].shape, size), int)
            for place, key in np.ndenumerate(ids[0]):
                for i in range(size):
                    parts = ("fold", int(key), derived.constant(i))
                    found[(*place, i)] = derived.number(
                        *(parts if threefry else ("split", int(key), i, size))
                    )
            return [found.reshape(*ids[0].shape, *shape)]
        if name == "random_fold_in":
            keys, data = np.broadcast_arrays(*ids)
            pairs = zip(keys.reshape(-1).tolist(), data.reshape(-1).tolist())  # noqa: B905
            found = [derived.number("fold", *pair) for pair in pairs]
        elif name == "random_seed":
            kind = str(getattr(params["impl"], "name", params["impl"]))
            bits = 8 * eqn.invars[0].aval.dtype.itemsize
            seeds = ids[0].reshape(-1).tolist()
            found = [derived.number("seed", each, kind, bits) for each in seeds]
        elif name == "random_wrap":
            kind = str(getattr(params["impl"], "name", params["impl"]))
            rows = ids[0].reshape(-1, ids[0].shape[-1]).tolist()
            found = [derived.key_of_words(row, kind) for row in rows]
        elif name == "random_unwrap":
            words = _axes(eqn.outvars[0])[-1]
            keys = ids[0].reshape(-1).tolist()
            found = [self._word(key, i) for key in keys for i in range(words)]
        elif name == "dynamic_slice" and len(ids) == 2 and np.prod(params["slice_sizes"]) == 1:
            row = ids[0].reshape(-1).tolist()
            found = [derived.number("pick", int(ids[1]), *row, len(row))]
        elif name in _INTEGER and all(each.ndim == 0 for each in ids):
            found = [derived.apply(name, [int(each) for each in ids])]
        else:
            return None
        return [np.array(found, int).reshape(_axes(eqn.outvars[0]))]

    def _word(self, key: int, place: int) -> int:
        term = self.derived.terms[key]
        return term[1 + place] if term[0] == "key" else self.derived.number("word", key, place)


class _Loop(NamedTuple):
    """A loop: the first term inside of it, its turns, and what a term is in each of them."""

    begin: int
    turns: int
    rows: dict[int, list[int]]


class _Where(NamedTuple):
    """Where in a program a walk is."""

    line: tuple[str, int, str] | None
    branches: tuple[tuple[int, int], ...]
    fixed: bool  # whether the line is that of all that is inside
    again: int = 0
    loops: tuple[_Loop, ...] = ()


def _as_list(found: Any) -> list[Ids]:
    return found if isinstance(found, list) else [found]


def _equal(one: Ids, other: Ids) -> bool:
    return one is not None and other is not None and bool(np.array_equal(one, other))


def _axes(var: Any) -> tuple[int, ...]:
    return tuple(getattr(var.aval, "shape", ()))


def _about(jaxpr: Any) -> str:
    return str(getattr(jaxpr.debug_info, "func_src_info", "") or "")


def _keys(var: Any) -> str:
    """Return the kind of the keys of a variable; of plain numbers, whether they have a sign."""
    dtype = var.aval.dtype
    if str(dtype).startswith("key<"):
        return _kind_of_keys(dtype)
    return SIGNED if dtype.kind == "i" else ""


def _kind_of_keys(dtype: Any) -> str:
    return str(dtype._impl.name)


def _may_draw(eqn: Any) -> bool:
    """Whether an operation draws, or has others inside of it."""
    name = eqn.primitive.name
    inside = any(each in eqn.params for each in _INSIDE)
    return inside or name in ("random_bits", "random_gamma", "while", "cond")


def _may_be_key(var: Any) -> bool:
    """Whether a variable holds keys, words of keys, or an integer."""
    dtype = str(getattr(var.aval, "dtype", ""))
    small = len(_axes(var)) == 0 and dtype in ("int32", "uint32", "int64", "uint64")
    return dtype.startswith("key<") or small or (dtype == "uint32" and _axes(var)[-1] in (2, 4))


def _has_simple_splits(dtype: Any) -> bool:
    """Whether key i of those that a key is split into is `fold_in(key, i)`."""
    jax: Any = sys.modules["jax"]
    return _kind_of_keys(dtype) == "threefry2x32" and bool(jax.config.jax_threefry_partitionable)
