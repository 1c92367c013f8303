"""Whatever is typed or written into a file, a command ends with a documented status and a sentence."""

import contextlib
import io
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psyche_chain.cli import exit_codes
from psyche_chain.cli.main import main
from psyche_chain.config import load_config
from psyche_chain.errors import ConfigError
from tests.chain.commands_page import commands
from tests.commands_page import options

ROOT = Path(__file__).resolve().parents[2]
SMOKE = (ROOT / "config/smoke.toml").read_text()
STATUSES = {getattr(exit_codes, n) for n in dir(exit_codes) if n.isupper()}
COMMANDS = {n: c for n, c in commands().items() if n not in ("join", "wallet new")}
"""`join` goes on for ever where it succeeds, and `wallet new` writes a file where it is told to."""
KEYS = ["11111111111111111111111111111111", "G7KidNxsM5kHQGzoYj4gRocyi1B7QGPieFyvKpmtHoNb"]

words = st.one_of(
    st.sampled_from(
        ["", "-", "--", "0", "-1", "1e400", "nan", "9" * 40, "auto", "demo", "x" * 33, "\0", "é" * 20]
    ),
    st.sampled_from(KEYS),
    st.sampled_from(["/", ".", "/dev/null", "missing.toml", str(ROOT / "config/smoke.toml")]),
    st.text(max_size=12),
    st.text(alphabet=string.ascii_letters + string.digits, min_size=30, max_size=46),
)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its own options, and with values of all kinds."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    known = [w.split()[0].rstrip(",") for w, _ in options(COMMANDS[name]) if w.startswith("--")]
    known = [w for w in known if w not in ("--watch", "--rpc", "--keypair")] or ["--json"]
    word = st.one_of(words, st.sampled_from(known))
    return [*name.split(), *draw(st.lists(word, max_size=6))]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of one's own, an endpoint where nobody listens, and a wallet."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr("psyche_chain.chain.rpc.DEFAULT_DEADLINE_S", 0.02)
        patch.setenv("PSYCHE_RPC", "http://127.0.0.1:9")
        patch.setenv("PSYCHE_KEYPAIR", str(folder / "wallet.json"))
        patch.setattr("sys.stdin", io.StringIO(""))
        assert main(["wallet", "new"]) == exit_codes.OK
        yield folder


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=lines())
def test_any_command_line_ends_with_a_sentence(elsewhere: Path, line: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(line)
    text = out.getvalue() + err.getvalue()
    assert status in STATUSES, text
    assert "Traceback" not in text
    assert "error: unexpected" not in text, text
    assert status == exit_codes.OK or err.getvalue().strip(), "a failure says what happened"


LINES = SMOKE.splitlines()
values = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=True).map(str),
    st.sampled_from(
        ["true", '""', '"x"', "[]", "{}", "[1, 2]", "1979-05-27", "'\\u0000'", "inf", "-nan", "0x_"]
    ),
    st.text(max_size=8),
)


@st.composite
def files(draw: st.DrawFn) -> str:
    """The smallest configuration with some lines changed, doubled, dropped or made up."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        key = lines[at].split("=")[0].strip()
        kind = draw(st.sampled_from(["value", "drop", "double", "noise", "table"]))
        if kind == "value" and key:
            lines[at] = f"{key} = {draw(values)}"
        elif kind == "drop" and len(lines) > 1:
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "noise":
            lines[at] = draw(st.text(max_size=20))
        elif kind == "table":
            lines[at] = draw(
                st.sampled_from(["[config]", "[[config]]", "[rewards.mint]", "[model]", "[join]"])
            )
    return "\n".join(lines)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=files())
def test_any_file_is_read_or_refused_in_a_sentence(elsewhere: Path, text: str) -> None:
    path = elsewhere / "fuzz.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    refusal = None
    try:
        load_config(path).chain_config()
    except ConfigError as error:
        refusal = error.message
    assert refusal is None or refusal.startswith(f"{path}: ")
    assert "\n" not in (refusal or "")
