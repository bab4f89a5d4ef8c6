"""Errors of frameworks and of users' models are told in one line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from orchestrator.cli.options import errors
from trainers.errors import ForeignError, InputError, one_line

GRAPH = """Graph execution error:

Detected at node while/add defined at (most recent call last):
<stack traces unavailable>
Incompatible shapes: [128,10] vs. [128,7]
\t [[{{node while/add}}]] [Op:__inference_step_381]"""
LAYER = (
    "Exception encountered when calling Dense.call().\n\n\x1b[1mno such axis\x1b[0m\n\nArguments received: x"
)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("data.path: there is no such file"), "data.path: there is no such file"),
        (ForeignError("Mine: odd"), "Mine: odd"),
        (ValueError(), "ValueError"),
        (RuntimeError(GRAPH), "RuntimeError: Incompatible shapes: [128,10] vs. [128,7]"),
        (
            TypeError(LAYER),
            "TypeError: Exception encountered when calling Dense.call(). no such axis Arguments received: x",
        ),
        (ValueError("x" * 1000), f"ValueError: {'x' * 300}…"),
    ],
    ids=["own", "told before", "silent", "tensorflow", "keras", "long"],
)
def test_the_line_says_what_is_wrong(error: Exception, told: str) -> None:
    assert one_line(error) == told


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("data.path: there is no such file"), 2, "tandem: data.path: there is no such file\n"),
        (
            KeyError("odd"),
            1,
            "tandem: unexpected KeyError: 'odd' (test_errors.py, line N); --debug shows where it came from\n",
        ),
    ],
    ids=["foreseen", "unforeseen"],
)
def test_a_command_tells_an_error_in_one_sentence(
    error: Exception, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, errors(debug=False):
        raise error
    said = re.sub(r"line \d+", "line N", capsys.readouterr().err)
    assert (ended.value.code, said) == (code, told)
    with pytest.raises(type(error)) as raised, errors(debug=True):
        raise error
    assert raised.value is error


def test_an_error_in_the_users_code_names_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The innermost line of the user's code, also where a library of others raised the error."""
    (tmp_path / "users_module.py").write_text(
        "import json\n\n\ndef read(text):\n    return json.loads(text)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import users_module  # type: ignore[import-not-found]

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        users_module.read("{")
    del sys.modules["users_module"]
    assert one_line(caught.value).endswith("(char 1) (users_module.py, line 5)")
    assert one_line(caught.value.with_traceback(None)).endswith("(char 1)"), (
        "without a traceback there is no place"
    )


def test_an_interrupt_ends_any_command_with_its_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors(debug=False):
        raise KeyboardInterrupt
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")
