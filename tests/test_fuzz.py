"""What strangers send is read or refused with a clear error: the corpus first, then new examples near to it.

`python -m tools.fuzz` does the same for as long as one likes, and prints the table of docs/security.md.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzzing.target import Target, attempt
from tests.fuzzing.targets import TARGETS

EXAMPLES = int(os.environ.get("MINICPM_FUZZ_EXAMPLES", "40"))
"""Per target; with the variable set they are new ones at every run."""

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about the damage that they find
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@each_target
def test_the_corpus_is_read_or_refused(target: Target) -> None:
    seen: Counter[str] = Counter()
    names = []
    for name, example in target.corpus():
        try:
            seen += target.check(example)
        except Exception as error:
            raise AssertionError(f"{target.name}/{name}") from error
        names.append(name)
    assert any(name.startswith("seed-") for name in names)
    assert seen["read"] > 0


@each_target
def test_new_examples_are_read_or_refused(target: Target) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize="MINICPM_FUZZ_EXAMPLES" not in os.environ,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.examples)
    def check(example: object) -> None:
        seen.update(target.check(example))

    check()
    assert seen["read"] >= EXAMPLES // 10, seen
    assert seen["refused"] >= EXAMPLES // 10, seen


def test_an_error_that_nobody_raised_on_purpose_is_a_bug() -> None:
    from minicpm_core.messages import check_messages

    seen: Counter[str] = Counter()
    with pytest.raises(AttributeError):
        attempt(lambda: {}.text, seen)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="invalid literal"):
        attempt(lambda: int("x"), seen)
    assert not seen
    assert attempt(lambda: check_messages([], vision=False), seen) is None
    assert seen == {"refused": 1}
