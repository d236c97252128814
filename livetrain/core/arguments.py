"""Command lines of verbs: argparse without abbreviations, whose errors are UserErrors and suggest the closest flag."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from livetrain.core.errors import UserError
from livetrain.core.files import expanded


class Parser(argparse.ArgumentParser):
    """The parser of `livetrain VERB`. Its help is `doc`, usually the docstring of the verb's module."""

    def __init__(self, verb: str = "", doc: str | None = None, **options: Any) -> None:
        usual = {
            "prog": f"livetrain {verb}",
            "description": doc,
            "formatter_class": argparse.RawDescriptionHelpFormatter,
            "allow_abbrev": False,
        }
        super().__init__(**(usual | options))

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of ending the process."""
        if bad := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            near = difflib.get_close_matches(bad[1], re.findall(r"'(.*?)'", bad[2]), n=1, cutoff=0.5)
            message += f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{self.prog}: {message}; `{self.prog} --help` says more")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """All arguments; options and positional ones in any order, but for a parser with verbs. Raises UserError."""
        arguments = [_at_home(word) for word in arguments]
        if self._subparsers is not None:
            options, rest = self.parse_known_args(arguments)
            chosen = self._verbs().get(arguments[0] if arguments else "", self)
            chosen._refuse(rest)
        else:
            options, rest = self.parse_known_intermixed_args(arguments)
            self._refuse(rest)
        return options

    def _verbs(self) -> dict[str, Parser]:
        actions = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return {name: verb for action in actions for name, verb in action.choices.items()}

    def parse_some(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """(options, everything else: files and `key=value`). Raises UserError for unknown flags."""
        options, rest = self.parse_known_args([_at_home(word) for word in arguments])
        self._refuse([item for item in rest if item.startswith("-")])
        return options, rest

    def _refuse(self, unknown: Sequence[str]) -> None:
        if unknown:
            flag = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(flag, self._option_string_actions, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"`{self.prog} --help` lists them"
            what = "option" if flag.startswith("-") else "argument"
            raise UserError(f"{self.prog}: unknown {what} {flag}; {hint}")


def _at_home(word: str) -> str:
    """With ~ replaced also in `--flag=~/…` and `key=~/…`, where shells leave it; `key=~` is YAML's null."""
    key, equals, value = word.partition("=")
    if equals and value == "~" and not key.startswith("-"):
        return word
    return key + equals + expanded(value) if equals and "~" not in key else expanded(word)
