"""Looks the installed packages up among known vulnerabilities: `make audit`.

pip-audit asks PyPI or OSV. A vulnerability is an error (exit code 1); a service that cannot be reached, or that knows
none of the packages, is told and is none: the build goes on without having been audited.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit, print a line for each vulnerability and one sum; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", default=sysconfig.get_path("purelib"), help="site-packages to look at")
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi")
    options = parser.parse_args(arguments)
    command = [sys.executable, "-m", "pip_audit", "--path", options.path, "-s", options.service, "-f", "json"]
    done = subprocess.run([*command, "--timeout", "15", "--progress-spinner", "off"], capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"audit: not done, {options.service} could not be asked: {last[:300]}")
        return 0
    return report(packages)


def report(packages: Sequence[dict[str, Any]]) -> int:
    """Print what was found among packages as pip-audit lists them; return 1 where there is a vulnerability."""
    known = [package for package in packages if "skip_reason" not in package]
    found = [(package, vulnerability) for package in known for vulnerability in package.get("vulns", ())]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
        print(f"audit: {package['name']} {package['version']}: {vulnerability['id']}, mended in {fixed}")
    if not known:
        print(f"audit: not done, the service knows none of the {len(packages)} packages (is PyPI's JSON reachable?)")
        return 0
    print(f"audit: {len(found)} vulnerabilities in {len(known)} packages; {len(packages) - len(known)} not looked up")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
