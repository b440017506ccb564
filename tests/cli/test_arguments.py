"""The argument parser's rules and texts."""

from __future__ import annotations

import pytest

from vmmd.cli.arguments import Argument, ArgumentsError, Parser

PARSER = Parser(
    [
        Argument("id", "Name.", takes_value=True, default="anonymous"),
        Argument("config-file", "File.", takes_value=True),
        Argument("no-api", "No API.", requires="config-file"),
        Argument("filter", "Filter.", takes_value=True, forbids="no-filter"),
        Argument("no-filter", "No filter.", forbids="filter"),
        Argument("version", "Version."),
    ]
)


def test_values_flags_and_defaults() -> None:
    values = PARSER.parse(["--config-file", "a b", "--no-api"])
    assert values.get("config-file") == "a b"
    assert values.get("id") == "anonymous"
    assert values.get("filter") is None
    assert values.has("no-api")
    assert not values.has("id")


def test_a_value_after_an_equals_sign() -> None:
    values = PARSER.parse(["--id=x=y", "--config-file=", "--no-api"])
    assert (values.get("id"), values.get("config-file")) == ("x=y", "")


def test_what_follows_two_dashes_is_not_looked_at() -> None:
    assert PARSER.parse(["--id", "x", "--", "--bogus", "y"]).get("id") == "x"


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (["x", "-h"], "help"),
        (["--id", "--help", "--version"], "help"),
        (["--bogus", "--version"], "version"),
    ],
)
def test_help_and_version_win(argv: list[str], flag: str) -> None:
    assert PARSER.parse(argv).has(flag)


def test_help_after_two_dashes_is_no_help() -> None:
    assert not PARSER.parse(["--", "--help"]).has("help")


@pytest.mark.parametrize(
    ("argv", "text", "debug"),
    [
        (
            ["--bogus"],
            "Found argument 'bogus' which wasn't expected, or isn't valid in this "
            "context.",
            'UnexpectedArgument("bogus")',
        ),
        (
            ["bo\ngus"],
            "Found argument 'bo\ngus' which wasn't expected, or isn't valid in this "
            "context.",
            'UnexpectedArgument("bo\\ngus")',
        ),
        (
            [""],
            "Found argument '' which wasn't expected, or isn't valid in this context.",
            'UnexpectedArgument("")',
        ),
        (
            ["--no-api=1"],
            "Found argument 'no-api=1' which wasn't expected, or isn't valid in this "
            "context.",
            'UnexpectedArgument("no-api=1")',
        ),
        (
            ["--no-filter", "true"],
            "Found argument 'true' which wasn't expected, or isn't valid in this "
            "context.",
            'UnexpectedArgument("true")',
        ),
        (
            ["--id"],
            "The argument 'id' requires a value, but none was supplied.",
            'MissingValue("id")',
        ),
        (
            ["--id", "--no-api"],
            "The argument 'id' requires a value, but none was supplied.",
            'MissingValue("id")',
        ),
        (
            ["--id", "a", "--id", "b"],
            "The argument 'id' was provided more than once.",
            'DuplicateArgument("id")',
        ),
        (
            ["--no-filter", "--no-filter"],
            "The argument 'no-filter' was provided more than once.",
            'DuplicateArgument("no-filter")',
        ),
        (
            ["--no-api"],
            "Argument 'config-file' required, but not found.",
            'MissingArgument("config-file")',
        ),
        (
            ["--no-filter", "--filter", "x"],
            "Argument 'no-filter' cannot be used together with argument 'filter'.",
            'ForbiddenArgument("filter", "no-filter")',
        ),
    ],
)
def test_what_is_wrong(argv: list[str], text: str, debug: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        PARSER.parse(argv)
    assert str(caught.value) == text
    assert caught.value.debug == debug


def test_the_help_page() -> None:
    assert PARSER.help().splitlines() == [
        "optional arguments:",
        "  --config-file <config-file>   File.",
        "  --filter <filter>             Filter.",
        "  --help                        Show the help message.",
        '  --id <id>                     Name. [default: "anonymous"]',
        "  --no-api                      No API.",
        "  --no-filter                   No filter.",
        "  --version                     Version.",
    ]
