"""The audit of dependencies fails for what is known, and tells where nothing could be asked."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tools import audit

SKIPPED = {"name": "a", "skip_reason": "Dependency not found on PyPI"}
GOOD = {"name": "b", "version": "1.0", "vulns": []}
BAD = {
    "name": "c",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}, {"id": "CVE-2", "fix_versions": []}],
}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([GOOD, SKIPPED], 0, "audit: 0 vulnerabilities in 1 packages; 1 not looked up"),
        (
            [GOOD, BAD],
            1,
            "audit: c 2.0: PYSEC-1, mended in 2.1\naudit: c 2.0: CVE-2, mended in no version yet\naudit: 2 vul",
        ),
        ([SKIPPED], 0, "audit: not done, the service knows none of the 1 packages"),
    ],
)
def test_what_was_found_is_told(packages: list[dict[str, Any]], code: int, said: str, capsys: Any) -> None:
    assert audit.report(packages) == code
    assert capsys.readouterr().out.startswith(said)


def test_a_service_that_is_not_reached_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    done = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nConnectionError: no such host\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)
    assert audit.main([]) == 0
    assert capsys.readouterr().out == "audit: not done, pypi could not be asked: ConnectionError: no such host\n"
