"""Firecracker's argument parser: its rules, its texts, its help page.

``--name value`` and ``--flag``; a value does not begin with ``--``; what follows
a bare ``--`` is not looked at. ``--name=value`` is accepted beyond that. ``--help``, ``-h`` and ``--version`` win
over everything else. Imports nothing, since ``--version`` must be quick.
"""

from __future__ import annotations

from vmmd.errors import ConfigError
from vmmd.rust import debug_str

TYPE_CHECKING = False  # the typing module costs a third of the start-up
if TYPE_CHECKING:
    from collections.abc import Iterator


class ArgumentsError(ConfigError):
    """The command line is wrong."""

    def __init__(self, text: str, variant: str, *names: str) -> None:
        super().__init__(text)
        self.debug = f"{variant}({', '.join(map(debug_str, names))})"


class Argument:
    """One argument that may be given. ``default`` makes it never absent."""

    __slots__ = ("default", "forbids", "name", "requires", "takes_value", "text")

    def __init__(
        self,
        name: str,
        text: str,
        *,
        takes_value: bool = False,
        default: str | None = None,
        requires: str | None = None,
        forbids: str | None = None,
    ) -> None:
        self.name = name
        self.text = text
        self.takes_value = takes_value
        self.default = default
        self.requires = requires
        self.forbids = forbids

    @property
    def usage(self) -> str:
        """How it is written on the help page."""
        value = f" <{self.name}>" if self.takes_value else ""
        return f"  --{self.name}{value}"


class Values:
    """What the command line said: the text of each value, "" for a flag."""

    def __init__(self, given: dict[str, str], defaults: dict[str, str]) -> None:
        self._given = given
        self._defaults = defaults

    def get(self, name: str) -> str | None:
        """The value given, or the default, or None."""
        return self._given.get(name, self._defaults.get(name))

    def has(self, name: str) -> bool:
        """Whether the argument was given."""
        return name in self._given


class Parser:
    """Parses a command line by a table of arguments."""

    def __init__(self, arguments: list[Argument]) -> None:
        self._arguments = {each.name: each for each in arguments}
        self._defaults = {
            each.name: each.default for each in arguments if each.default is not None
        }

    def parse(self, argv: list[str]) -> Values:
        """Read the arguments after the program's name; raises ArgumentsError."""
        words = argv[: argv.index("--")] if "--" in argv else argv
        for name, spellings in (
            ("help", ("--help", "-h")),
            ("version", ("--version",)),
        ):
            if any(spelling in words for spelling in spellings):
                return Values({name: ""}, self._defaults)
        given: dict[str, str] = {}
        rest = iter(words)
        for word in rest:
            name, equals, value = word.partition("=")
            if equals and self._takes_value(name):
                given[self._find(name, given).name] = value
            else:
                argument = self._find(word, given)
                given[argument.name] = _value(argument, rest)
        for name in sorted(given):
            _check_company(self._arguments[name], words)
        return Values(given, self._defaults)

    def _takes_value(self, word: str) -> bool:
        argument = self._arguments.get(word.removeprefix("--"))
        return argument is not None and argument.takes_value

    def _find(self, word: str, given: dict[str, str]) -> Argument:
        name = word.removeprefix("--")
        argument = self._arguments.get(name) if word.startswith("--") else None
        if argument is None:
            raise ArgumentsError(
                f"Found argument '{name}' which wasn't expected, or isn't valid in "
                "this context.",
                "UnexpectedArgument",
                name,
            )
        if name in given:
            raise ArgumentsError(
                f"The argument '{name}' was provided more than once.",
                "DuplicateArgument",
                name,
            )
        return argument

    def help(self) -> str:
        """The help page, without its first line."""
        listed = {**self._arguments, "help": Argument("help", "Show the help message.")}
        width = max(len(each.usage) for each in listed.values())
        lines = ["optional arguments:"]
        for name in sorted(listed):
            each = listed[name]
            default = f' [default: "{each.default}"]' if each.default else ""
            lines.append(f"{each.usage:<{width}}   {each.text}{default}")
        return "\n".join(lines)


def _value(argument: Argument, rest: Iterator[str]) -> str:
    if not argument.takes_value:
        return ""
    value = next(rest, "--")
    if value.startswith("--"):
        raise ArgumentsError(
            f"The argument '{argument.name}' requires a value, but none was supplied.",
            "MissingValue",
            argument.name,
        )
    return value


def _check_company(argument: Argument, words: list[str]) -> None:
    """Hold what an argument requires and forbids beside it."""
    needed, unwanted = argument.requires, argument.forbids
    names = {word.partition("=")[0] for word in words}
    if needed is not None and f"--{needed}" not in names:
        raise ArgumentsError(
            f"Argument '{needed}' required, but not found.", "MissingArgument", needed
        )
    if unwanted is not None and f"--{unwanted}" in names:
        raise ArgumentsError(
            f"Argument '{unwanted}' cannot be used together with argument "
            f"'{argument.name}'.",
            "ForbiddenArgument",
            argument.name,
            unwanted,
        )
