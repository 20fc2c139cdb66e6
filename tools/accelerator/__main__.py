"""Measure on the device that is here, and write JSON and a table: `make accelerator`.

`python -m tools.accelerator [--out FOLDER] [--seconds N] [--only PART ...]` needs JAX and NumPy.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Measure, and print the table; 0 if every part was measured without an error."""
    began = time.monotonic()
    arguments = parsed()
    with tempfile.TemporaryDirectory(prefix="accelerator-") as folder:
        from tools.accelerator.missing import stand_in

        lacking = stand_in(Path(folder))
        sys.path.append(folder)
        from tools.accelerator.run import measured

        return measured(arguments, began, folder if lacking else "", lacking)


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.accelerator", description=__doc__)
    out = ROOT / "build" / "accelerator"
    parser.add_argument("--out", type=Path, default=out, help="where JSON and Markdown are written")
    parser.add_argument("--seconds", type=float, default=450, help="time for all of it")
    parser.add_argument("--only", nargs="+", default=[], help="these parts only")
    parser.add_argument("--small", action="store_true", help="two networks, three operations")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
