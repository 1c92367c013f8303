"""docs/training-commands.md: every command, every option, and output that is still what the commands print."""

from __future__ import annotations

import pytest

from psyche_train.cli import exit_codes
from psyche_train.evals.tasks import TASKS
from tests.commands_page import options
from tests.train import commands_doc, commands_page

PAGE = commands_doc.PAGE.read_text()


def test_every_command_and_option_is_on_the_page() -> None:
    for name, command in commands_page.commands().items():
        part = PAGE.split(f"\n### `{name}`\n")[1].split("\n#")[0]
        assert command.epilog in part, name
        for words, text in options(command):
            assert text, (name, words)
            where = PAGE if words.split()[0] in commands_page.COMMON else part
            assert f"`{words}`".replace("|", "\\|") in where, (name, words)


def test_every_status_and_task_is_on_the_page() -> None:
    for name in dir(exit_codes):
        if name.isupper():
            assert f"\n| {getattr(exit_codes, name)} | " in PAGE, name
    for name in TASKS:
        assert f"\n| {name} | " in PAGE, name


def test_no_path_of_a_machine_is_on_the_page() -> None:
    assert "/tmp" not in PAGE
    assert str(commands_doc.ROOT) not in PAGE
    assert "\x1b" not in PAGE


@pytest.mark.slow
def test_the_commands_still_print_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands_doc.run(["--check"]) == 0, capsys.readouterr().out
