"""`.ci/run` goes on without what it cannot install, and says what that is."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / ".ci" / "run"


def optional(command: str) -> subprocess.CompletedProcess[str]:
    """What its function says of one installation."""
    text = SCRIPT.read_text()
    begin = text.index("optional() {")
    function = text[begin : text.index("\n}\n", begin) + 3]
    shell = f'set -euo pipefail\n{function}\noptional "a thing" {command}\necho went on'
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True)


def test_an_installation_that_fails_is_named_in_one_line_and_the_rest_goes_on():
    done = optional("false")
    assert (done.returncode, done.stdout) == (0, "went on\n")
    (line,) = done.stderr.splitlines()
    assert line == ".ci/run: NOT INSTALLED: a thing (the tests that need it will skip)"


def test_one_that_succeeds_says_nothing():
    done = optional("true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_no_installation_fails_in_silence():
    text = SCRIPT.read_text()
    assert "|| true" not in text
    for line in text.splitlines():
        if " install " in line and not line.lstrip().startswith(("#", "apt_install()")):
            assert "optional " in line
