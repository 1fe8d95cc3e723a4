"""Keys, tokens and passwords stand in no text that a program shows, logs, traces or stores."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps

from langchain_minicpm import ChatMiniCPM, ChatMiniCPMV
from langchain_minicpm import MiniCPMLLM as LangChainLLM
from llamaindex_minicpm import MiniCPM, MiniCPMMultiModal
from llamaindex_minicpm import MiniCPMLLM as LlamaIndexLLM
from minicpm_core import close_all
from minicpm_core.fetching import fetch
from minicpm_core.images import read_image
from minicpm_core.urls import hide_password
from tests.scripted_server import Reply, scripted, text_events

KEY = "sk-geheim"
LANGCHAIN = (ChatMiniCPM, ChatMiniCPMV, LangChainLLM)
LLAMAINDEX = (MiniCPM, MiniCPMMultiModal, LlamaIndexLLM)
each_class = pytest.mark.parametrize(
    "kind", [*LANGCHAIN, *LLAMAINDEX], ids=lambda c: f"{c.__module__[:4]}-{c.__name__}"
)
GOOD = {"model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key": KEY}


def fail(call: Callable[[], Any]) -> str:
    """Return all that the traceback of a failure shows."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return "".join(traceback.format_exception(caught.value))


@each_class
def test_a_model_does_not_show_its_key(kind: Any) -> None:
    model = kind(**GOOD)
    key = model.api_key
    assert (key if isinstance(key, str) else key.get_secret_value()) == KEY
    shown = [repr(model), str(model), repr(model.__repr_args__())]
    if kind in LANGCHAIN:
        shown += [
            dumps(model),
            dumps(model | (lambda x: x)),
            repr(model._identifying_params),
            repr(model._get_ls_params()),
        ]
        shown += [repr(model.model_dump()), model.model_dump_json()]
    else:
        shown += [repr(model.to_dict()), model.to_json(), repr(model.to_payload()), repr(model.metadata)]
        shown += [repr(model.model_dump()), model.model_dump_json()]
    assert [text for text in shown if KEY in text] == []


@each_class
@pytest.mark.parametrize(
    "wrong", [{"temperature": 99}, {"memory_limt": "4GiB"}, {"top_logprobs": -1, "logprobs": True}]
)
def test_a_wrong_argument_does_not_show_the_key_beside_it(kind: Any, wrong: dict[str, Any]) -> None:
    shown = fail(lambda: kind(api_key=KEY, **wrong))
    assert next(iter(wrong)) in shown
    assert KEY not in shown


@each_class
def test_a_password_in_the_url_of_a_server_is_refused(kind: Any) -> None:
    shown = fail(lambda: kind(model="m", base_url=f"https://me:{KEY}@host/v1"))
    assert "https://***@host/v1 holds a user name or password" in shown
    assert KEY not in shown


class _Trace(BaseCallbackHandler):
    """Keeps what a tracer would send."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen += [args, kwargs]

    def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen += [args, kwargs]

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.seen += [traceback.format_exception(error), kwargs]

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.seen += [args, kwargs]


@pytest.fixture
def closed() -> Iterator[None]:
    yield
    close_all()


@pytest.mark.enable_socket
@pytest.mark.parametrize("status", [200, 401, 500])
def test_a_call_shows_its_key_to_the_server_alone(
    status: int, caplog: pytest.LogCaptureFixture, closed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minicpm_core.server.engine as server_engine

    monkeypatch.setattr(server_engine, "RETRIES", 0)
    caplog.set_level(logging.DEBUG)
    trace = _Trace()
    reply = Reply(text_events("Hello")) if status == 200 else Reply(status=status)
    with scripted(reply) as script:
        for kind in LANGCHAIN:
            model = kind(model="m", base_url=script.url, api_key=KEY)
            if status == 200:
                assert "Hello" in str(model.invoke("Q", config={"callbacks": [trace]}))
            else:
                trace.seen.append(fail(lambda model=model: model.invoke("Q", config={"callbacks": [trace]})))
        llm = MiniCPM(model="m", base_url=script.url, api_key=KEY)
        if status != 200:
            trace.seen.append(fail(lambda: llm.complete("Q")))
        else:
            trace.seen.append(llm.complete("Q"))
        assert set(script.keys) == {f"Bearer {KEY}"}
    assert len(trace.seen) >= 6
    assert KEY not in repr(trace.seen)
    assert caplog.records
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "call",
    [
        lambda: fetch(f"http://me:{KEY}@host:99999/x.png", max_bytes=9),
        lambda: fetch(f"https://me:{KEY}@host/x.png", max_bytes=9),
        lambda: fetch(f"ftp://me:{KEY}@host/x.png", max_bytes=9),
        lambda: read_image(f"ftp://me:{KEY}@host/x.png"),
        lambda: read_image(f"http://me:{KEY}@host/x.png"),
        lambda: read_image(f"s3://{KEY}@bucket/" + "x" * 300),
    ],
)
def test_the_password_of_an_address_is_not_repeated(call: Callable[[], Any]) -> None:
    shown = fail(call).rpartition("Error: ")[2]  # above it stand the lines of this file
    assert "URL" in shown or "is not downloaded" in shown
    assert KEY not in shown


def test_a_token_of_the_hub_is_not_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import minicpm_core

    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", KEY)
    shown = fail(lambda: minicpm_core.load("nobody/no-such-model"))
    assert "could not be downloaded" in shown
    assert KEY not in shown + caplog.text


def test_what_is_hidden() -> None:
    assert (
        hide_password("see https://a:b@host/p?x=c@d and http://host/@x")
        == "see https://***@host/p?x=c@d and http://host/@x"
    )
