"""What must not be written down: passwords, keys and tokens, in commands and in names of files.

The rule: rather too much is hidden than too little; what is hidden is not kept as a digest either.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Names whose value is not written down, of a variable or of an argument such as --api-key.
SECRET = re.compile(r"(?i)passw|pwd$|secret|token([-_.]|$)|credential|(^|[-_.]|api)key$")
HIDDEN = "…"
_LITERAL = re.compile(r"""("{3}|'{3}|"|')(?:\\.|(?!\1).)*(?:\1|$)""", re.DOTALL)
_IN_A_TEXT = (
    # password=…, "api_key": "…", Authorization: Bearer …
    re.compile(
        r"(?i)((?:passw(?:or)?d|passphrase|pwd|secret\w*|token|credentials?|api[-_]?key"
        r"|access[-_]?key|authorization)(?![a-z])\\?[\"']?\s*[=:]\s*\\?[\"']?(?:bearer |basic )?)"
        r"[^\s\"'\\,;&}\]/]+"
    ),
    re.compile(r"(://[^/@\s:\"]*:)[^/@\s\"]+(?=@)"),
    # Tokens that are known by how they begin.
    re.compile(
        r"((?<![A-Za-z0-9])(?:sk-|hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|AIza|eyJ))"
        r"[A-Za-z0-9_.-]{12,}"
    ),
)


def without_secrets(words: Sequence[str]) -> list[str]:
    """Return a command without the values of what sounds like a password, a key or a token.

    Args:
        words: the command. What stands in quotes in a program that is given by `-c` is hidden.
    """
    found, before = [], ""
    for word in words:
        name, equals, _ = word.partition("=")
        asked = before.startswith("-") and "=" not in before and SECRET.search(before)
        if before == "-c":
            word = _LITERAL.sub(rf"\1{HIDDEN}\1", word)
        elif asked and not word.startswith("-"):
            word = HIDDEN
        elif equals and SECRET.search(name):
            word = f"{name}={HIDDEN}"
        before = word
        found.append(text_without_secrets(word))
    return found


def text_without_secrets(text: str) -> str:
    """Return a text, such as the name of a file, without what looks like a secret.

    Args:
        text: it stays JSON if it is.
    """
    for pattern in _IN_A_TEXT:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text
