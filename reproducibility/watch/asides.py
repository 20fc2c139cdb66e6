"""What is done beside the record of a call if it is asked for: computed twice, looked at for keys.

The rule: what fails here is counted, and the record goes on.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .compiled import Compiled
from .consumed import Consumed, Taken
from .second import Inputs, Second


class Aside:
    """What was made ready before a call."""

    __slots__ = ("_of", "keys", "second")

    def __init__(self, of: Asides, second: Inputs | None, keys: Taken | None) -> None:
        self._of, self.second, self.keys = of, second, keys

    def after(
        self, line: Any, arguments: Sequence[Any], results: Any, constants: Sequence[Any] = ()
    ) -> None:
        """Do what it was made ready for, once the call has been executed."""
        if self.second is not None and self._of.second is not None:
            self._of.second.after(self.second, line, arguments, results, constants)
        if self.keys is not None and self._of.consumed is not None:
            self._of.consumed.after(self.keys, line, arguments)


class Asides:
    """What was asked for."""

    def __init__(self, second: Second | None, consumed: Consumed | None) -> None:
        self.second, self.consumed = second, consumed

    def before(
        self, called: Any, arguments: Sequence[Any], around: Any, *, is_waited_for: bool
    ) -> Aside:
        """Make ready what is to be done after a call of a function, or of a program.

        `around` is what is known of a call around this one. Nothing is computed twice while a
        program waits for it.
        """
        program = called if isinstance(called, Compiled) else None
        second = keys = None
        if self.second is not None and not is_waited_for:
            decided = around is not None and around.looked
            is_turn = decided and around.aside is not None and around.aside.second is not None
            name = program.text if program else called
            second = self.second.before(name, arguments, is_turn if decided else None)
        if self.consumed is not None and program is not None:
            keys = self.consumed.of_program(program, arguments)
        elif self.consumed is not None:
            keys = self.consumed.before(called, arguments)
        return Aside(self, second, keys)
