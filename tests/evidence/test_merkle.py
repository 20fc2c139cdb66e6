"""Promises of `reproducibility.evidence.merkle`."""

import hashlib

import pytest

from reproducibility.evidence.merkle import inclusion_path, leaf_hash, root_by_path, tree_root


def reference_root(parts: list[bytes]) -> bytes:
    """Compute the tree hash as RFC 6962 defines it."""
    if not parts:
        return hashlib.sha256(b"").digest()
    if len(parts) == 1:
        return hashlib.sha256(b"\x00" + parts[0]).digest()
    k = 1 << (len(parts) - 1).bit_length() - 1
    halves = reference_root(parts[:k]) + reference_root(parts[k:])
    return hashlib.sha256(b"\x01" + halves).digest()


def test_the_root_is_that_of_the_rfc() -> None:
    """Root for every length up to 70, and published vectors of Certificate Transparency."""
    parts = [bytes([n]) * n for n in range(70)]
    for count in range(71):
        assert tree_root([leaf_hash(p) for p in parts[:count]]) == reference_root(parts[:count])
    hexes = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
    vectors = [leaf_hash(bytes.fromhex(h)) for h in (*hexes, "606162636465666768696a6b6c6d6e6f")]
    assert tree_root(vectors[:1]).hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert tree_root(vectors).hex() == (
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 33])
def test_a_path_leads_one_leaf_from_one_place_to_the_root(count: int) -> None:
    """Its own path leads a leaf to the root; a different leaf, place, length or path does not."""
    leaves = [leaf_hash(bytes([n])) for n in range(count)]
    root = tree_root(leaves)
    for index, leaf in enumerate(leaves):
        path = inclusion_path(leaves, index)
        assert root_by_path(leaf, index, count, path) == root
        assert root_by_path(leaf_hash(b"other"), index, count, path) != root
        assert root_by_path(leaf, index, count, [*path, leaf]) is None
        assert root_by_path(leaf, count, count, path) is None
        if path:
            assert root_by_path(leaf, index, count, path[:-1]) is None
            other = [bytes(32), *path[1:]]
            assert root_by_path(leaf, index, count, other) != root
        for place in range(count):
            if place != index:
                assert root_by_path(leaf, place, count, path) != root


def test_a_node_is_no_leaf() -> None:
    """Two hashes side by side, as a part, are no node: a part cannot be passed off as a subtree."""
    a, b = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(a + b) != tree_root([a, b])
