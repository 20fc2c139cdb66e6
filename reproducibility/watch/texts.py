"""What a program does, in its own text: with places in the source, and what XLA made of it.

The rule: a digest decides that two programs differ; what is kept here only says how.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import zlib
from typing import Any

PROGRAMS = "programs.txt"  # the file of a record with the text of each program
WRITTEN_OUT = 16  # elements of a constant that stand in the text; of a larger one its digest does
_CONTENT = re.compile(r"stablehlo\.constant dense(?:_resource)?<([^>]*)>")


def line_of_text(digest: str, whole: str, hlo: Any) -> str:
    """Return the line that keeps a program's text, with places in the source.

    Args:
        digest: that of `whole`, by which calls name the program.
        whole: its StableHLO with every number.
        hlo: the module itself.
    """
    text = hlo.operation.get_asm(enable_debug_info=True, large_elements_limit=WRITTEN_OUT)
    facts = {
        "text": digest,
        "stablehlo": base64.b64encode(zlib.compress(text.encode(), 1)).decode(),
        "constants": [_shortened(each) for each in _constants(whole)],
    }
    return json.dumps(facts)


def _constants(whole: str) -> list[str]:
    """Return what is written in each constant; large ones stand at the end of the text."""
    body, _, resources = whole.partition("\n{-#")
    kept = dict(re.findall(r'^\s*(\S+): "(0x[0-9A-F]*)"', resources, re.MULTILINE))
    return [kept.get(each, each) for each in _CONTENT.findall(body)]


def what_xla_made(executable: Any) -> dict[str, Any]:
    """Return the digest of the optimised program, and the devices in their order."""
    facts: dict[str, Any] = {}
    try:
        facts["devices"] = [f"{each.platform}:{each.id}" for each in executable.local_devices()]
        facts["kind"] = str(executable.local_devices()[0].device_kind)
        facts["optimised"] = _shortened("".join(_optimised(executable)))
    except Exception as error:  # it explains a difference; without it there is one less to say
        facts["unknown"] = type(error).__name__
    return facts


def _optimised(executable: Any) -> list[str]:
    """Return the text of what XLA made of a program, without places in the source."""
    texts = []
    for module in executable.hlo_modules():
        options = sys.modules[type(module).__module__].HloPrintOptions.short_parsable()
        texts.append(module.to_string(options))
    return texts


def _shortened(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
