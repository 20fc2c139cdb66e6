"""One digest of a list of parts, and short proofs that a part is in the list.

The rule: the hash of a part and the hash of two nodes can never be taken for each other.
Chapter: docs/guide/verification.md

The tree is that of RFC 6962: SHA-256 of a zero byte and the part, or of a byte 1 and two nodes; a
list is split at the largest power of two below its length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_hash(part: bytes) -> bytes:
    """Return the hash of a part, which is a leaf of the tree.

    **Same bits:** everywhere.

    Args:
        part: its bytes.

    References:
        RFC 6962, Certificate Transparency, section 2.1, 2013.
    """
    return hashlib.sha256(b"\x00" + part).digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Return the one digest of a list of leaves, in this order.

    **Same bits:** everywhere.

    Args:
        leaves: what `leaf_hash` returned for each part.
    """
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:  # an odd last one moves up as it is: that is the split of RFC 6962
        paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the nodes with which a leaf comes to the root, the nearest first.

    **Same bits:** everywhere.

    Args:
        leaves: all of them.
        index: of the leaf.
    """
    path, level = [], list(leaves)
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):
            path.append(level[beside])
        paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level, index = paired + level[len(paired) * 2 :], index // 2
    return path


def root_by_path(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a leaf comes to with a path; None if it is no path of such a leaf.

    **Same bits:** everywhere.

    Args:
        leaf: its hash.
        index: where it is said to be in the list.
        count: how many leaves the list has.
        path: what `inclusion_path` returned.
    """
    if not 0 <= index < count:
        return None
    found, rest = leaf, list(path)
    while count > 1:
        if index % 2 or index + 1 < count:
            if not rest:
                return None
            beside = rest.pop(0)
            found = _node(beside, found) if index % 2 else _node(found, beside)
        index, count = index // 2, (count + 1) // 2
    return None if rest else found


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
