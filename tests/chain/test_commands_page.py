"""docs/commands.md: every command, every option, and output that is still what the commands print."""

from pathlib import Path

import pytest

from psyche_chain.cli import exit_codes
from tests.chain import commands_doc, commands_page
from tests.commands_page import options

PAGE = Path(commands_doc.PAGE).read_text()


def test_every_command_is_on_the_page_with_output() -> None:
    on_page = [name for names in commands_page.SECTIONS.values() for name in names]
    assert sorted(on_page) == sorted(commands_page.commands())
    for name in on_page:
        part = PAGE.split(f"\n### `{name}`\n")[1].split("\n#")[0]
        assert f"\n$ psyche-chain {name}" in part, name


def test_every_command_says_what_it_does_and_gives_an_example() -> None:
    for name, command in commands_page.commands().items():
        assert command.help, name
        assert command.epilog.startswith(f"Example: psyche-chain {name}"), name
        for words, text in options(command):
            assert text, (name, words)
            assert f"| {text.replace('|', chr(92) + '|')} |" in PAGE, (name, words)


def test_every_exit_status_is_on_the_page() -> None:
    part = PAGE.split("\n## Exit status\n")[1].split("\n## ")[0]
    for name in dir(exit_codes):
        if name.isupper():
            assert f"\n| {getattr(exit_codes, name)} | " in part, name


def test_no_secret_and_no_colour_is_on_the_page() -> None:
    assert "\x1b" not in PAGE
    for name in ("operator", "alice", "bob", "carol"):
        assert str(commands_doc.fixed_key(name)) not in PAGE


def test_tables_fit_into_eighty_columns() -> None:
    tables = [
        line for line in PAGE.splitlines() if line.startswith(("slot  ", "wallet  ", "run_id  ", "grantee  "))
    ]
    assert len(tables) >= 4
    assert max(map(len, tables)) <= 80


@pytest.mark.slow
def test_the_commands_still_print_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands_doc.run(["--check"]) == 0, capsys.readouterr().out
