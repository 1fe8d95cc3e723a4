"""Many callers at once for minutes: nobody waits for ever, answers are not mixed up, the memory stays flat.

Run it as `python -m benchmarks.soak` (10 minutes; `--seconds 120` for less). 32 callers share one engine of the demo
checkpoint: in threads and in asyncio, streaming and not, through the engine and through both frameworks' classes, with
tools, schemas and stop texts. A third of the streams are left early. Every answer is compared with that of the same
request alone (greedy); what a stream that was left had given must be the beginning of it. The order in which requests
are begun is compared with that of their arrival. It ends at once, with all stacks, where no request ends for a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import minicpm_core
from benchmarks.tables import Bar, describe_machine, format_bars, format_table
from minicpm_core import Chunk, Engine, Sampling

CALLERS = 32
SILENCE = 60.0
"""Seconds without the end of any request after which the run is taken for stuck."""
GROWTH = 1.0
"""MiB per minute, after the first fifth of the run, that count as flat."""
_WAYS = ("engine", "langchain", "llamaindex")


def _tool(name: str, text: str, **properties: str) -> dict[str, Any]:
    fields = {key: {"type": kind} for key, kind in properties.items()}
    schema = {"type": "object", "properties": fields, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}


TOOLS = [
    _tool("add", "Add two integers.", a="integer", b="integer"),
    _tool("get_weather", "Get the weather of a city.", city="string"),
]
_PASSAGES = "[1] The lamp has a warranty of two years.\n[2] The lamp costs 35 EUR.\n[3] The kettle holds one litre."


@dataclass(frozen=True)
class Case:
    """A request: the user's words and the engine's options."""

    text: str
    options: dict[str, Any] = field(default_factory=dict)


def make_cases(most: int) -> list[Case]:
    """Return the requests, of several kinds, whose answers have at most `most` tokens."""
    plain = [Case(f"{_PASSAGES}\n\nQuestion: {q}") for q in ("What does the lamp cost?", "How large is the kettle?")]
    plain += [Case(text) for text in ("Hello!", "Who are you?", "保修期是多长时间？", "What is the capital of France?")]
    stops = [
        Case(case.text, {"stop": [stop]}) for case, stop in zip(plain, ("lamp", " ", "e", "I", "。", "."), strict=True)
    ]
    tools = [Case(f"What is {a} plus {b}?", {"tools": TOOLS}) for a, b in ((17, 25), (3, 88))]
    tools += [
        Case(f"What is the weather in {city}?", {"tools": TOOLS, "tool_choice": "any"}) for city in ("Bonn", "Oslo")
    ]
    object_ = {"type": "object", "properties": {"price": {"type": "integer"}}, "required": ["price"]}
    schemas = [Case(f"{_PASSAGES}\n\nWhat does the lamp cost?", {"response_schema": object_})]
    sampling = Sampling(temperature=0, max_new_tokens=most)
    return [Case(c.text, c.options | {"sampling": sampling}) for c in [*plain, *stops, *tools, *schemas]]


@dataclass
class Record:
    """What the callers saw."""

    kinds: Counter[str] = field(default_factory=Counter)
    by_caller: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)  # seconds to the first piece
    mixed_up: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    last_end: float = field(default_factory=time.monotonic)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MiB

    def overtaken(self) -> int:
        """Return how many requests were begun before one that had arrived earlier; those left while waiting aside."""
        begun = set(self.begun)
        expected = [number for number in self.arrived if number in begun]
        return sum(one != other for one, other in zip(expected, self.begun, strict=True))

    def slope(self) -> float:
        """Return the growth of the resident memory in MiB per minute, by least squares, without the first fifth."""
        points = self.memory[len(self.memory) // 5 :]
        if len(points) < 3:
            return 0.0
        x = sum(second for second, _ in points) / len(points)
        y = sum(size for _, size in points) / len(points)
        spread = sum((second - x) ** 2 for second, _ in points)
        return 60 * sum((second - x) * (size - y) for second, size in points) / spread


def text_of(chunk: Chunk) -> str:
    """Return what is compared of an answer; ids of calls are drawn anew each time."""
    calls = [(call.name, call.text, call.arguments, call.error) for call in chunk.tool_calls]
    return json.dumps([chunk.content, chunk.reasoning, calls, chunk.finish_reason], ensure_ascii=False)


def begins(part: Chunk, whole: Chunk) -> bool:
    """Tell whether a part of an answer is the beginning of the whole."""
    pairs = zip(part.tool_calls, whole.tool_calls, strict=False)
    calls = len(part.tool_calls) <= len(whole.tool_calls) and all(
        a.name == b.name and b.text.startswith(a.text) for a, b in pairs
    )
    return calls and whole.content.startswith(part.content) and whole.reasoning.startswith(part.reasoning)


@contextmanager
def watched(engine: Engine, record: Record) -> Iterator[None]:
    """Note when requests arrive at the engine's queue and when they are begun."""
    worker, numbers = engine._worker, itertools.count()
    submit = worker._submit
    order = threading.Lock()

    def noted(job: Any) -> None:
        with order:  # number and place in the queue belong together
            number, produce = next(numbers), job.produce

            def run(stop: Any) -> Any:
                record.begun.append(number)
                return produce(stop)

            job.produce = run
            record.arrived.append(number)
            submit(job)

    worker._submit = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        del worker._submit  # type: ignore[method-assign]


class Callers:
    """The callers of one run.

    Args:
        engine: shared by all.
        record: filled by them.
        most: tokens of an answer at most.
        patience: asks, in seconds, for an answer; far more than it takes.
    """

    def __init__(self, engine: Engine, record: Record, most: int, patience: float = 600.0) -> None:
        from langchain_minicpm import ChatMiniCPM
        from llamaindex_minicpm import MiniCPM

        self.engine, self.record, self.patience = engine, record, patience
        self.cases = make_cases(most)
        self.alone = [engine.generate(self.messages(case), **case.options) for case in self.cases]
        self.langchain = ChatMiniCPM(engine=engine, temperature=0, max_tokens=most, timeout=patience)
        self.llamaindex = MiniCPM(engine=engine, temperature=0, max_tokens=most, timeout=patience)
        self.stop = threading.Event()

    @staticmethod
    def messages(case: Case) -> list[dict[str, Any]]:
        """Return the prompt."""
        return [{"role": "user", "content": case.text}]

    def in_thread(self, caller: int) -> None:
        """Ask until told to stop."""
        drawn = random.Random(caller)
        while not self.stop.is_set():
            asked = self._draw(drawn, caller)
            began = time.monotonic()
            try:
                self._judge(caller, *asked, began, self._ask(*asked))
            except Exception as error:
                self._fail(asked, error)

    async def in_task(self, caller: int) -> None:
        """Do the same in asyncio."""
        drawn = random.Random(caller)
        while not self.stop.is_set():
            asked = self._draw(drawn, caller)
            began = time.monotonic()
            try:
                self._judge(caller, *asked, began, await self._aask(*asked))
            except Exception as error:
                self._fail(asked, error)

    def _draw(self, drawn: random.Random, caller: int) -> tuple[str, int, int | None]:
        """Return a way to ask, a case, and after how many pieces the stream is left: 0 not at all, None no stream."""
        way = _WAYS[caller % 3]
        number = drawn.randrange(len(self.cases))
        if way != "engine":  # tools and schemas go through the engine, whose options they are
            while set(self.cases[number].options) - {"sampling", "stop"}:
                number = drawn.randrange(len(self.cases))
        return way, number, (None, 0, drawn.randint(1, 4))[drawn.randrange(3)]

    def _ask(self, way: str, number: int, leave: int | None) -> tuple[Any, bool, float]:
        case = self.cases[number]
        if leave is None:
            if way == "engine":
                answer: Any = self.engine.generate(self.messages(case), timeout=self.patience, **case.options)
            elif way == "langchain":
                answer = self.langchain.invoke(case.text, stop=case.options.get("stop")).text
            else:
                answer = self.llamaindex.complete(case.text, stop=case.options.get("stop")).text
            return answer, True, time.monotonic()
        if way == "engine":
            stream: Any = self.engine.stream(self.messages(case), timeout=self.patience, **case.options)
        elif way == "langchain":
            stream = self.langchain.stream(case.text, stop=case.options.get("stop"))
        else:
            stream = self.llamaindex.stream_complete(case.text, stop=case.options.get("stop"))
        got, first = _Sum(way), 0.0
        with closing(stream) as pieces:
            for count, piece in enumerate(pieces, start=1):
                first = first or time.monotonic()
                got.add(piece)
                if count == leave:
                    return got.value, False, first
        return got.value, True, first

    async def _aask(self, way: str, number: int, leave: int | None) -> tuple[Any, bool, float]:
        case = self.cases[number]
        if leave is None:
            if way == "engine":
                answer: Any = await self.engine.agenerate(self.messages(case), timeout=self.patience, **case.options)
            elif way == "langchain":
                answer = (await self.langchain.ainvoke(case.text, stop=case.options.get("stop"))).text
            else:
                answer = (await self.llamaindex.acomplete(case.text, stop=case.options.get("stop"))).text
            return answer, True, time.monotonic()
        if way == "engine":
            stream: Any = self.engine.astream(self.messages(case), timeout=self.patience, **case.options)
        elif way == "langchain":
            stream = self.langchain.astream(case.text, stop=case.options.get("stop"))
        else:
            stream = await self.llamaindex.astream_complete(case.text, stop=case.options.get("stop"))
        got, first, count = _Sum(way), 0.0, 0
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                first, count = first or time.monotonic(), count + 1
                got.add(piece)
                if count == leave:
                    return got.value, False, first
        return got.value, True, first

    def _judge(
        self, caller: int, way: str, number: int, leave: int | None, began: float, answer: tuple[Any, bool, float]
    ) -> None:
        got, is_whole, first = answer
        alone, record = self.alone[number], self.record
        if isinstance(got, Chunk):
            right = text_of(got) == text_of(alone) if is_whole else begins(got, alone)
        else:
            right = got == alone.content if is_whole else alone.content.startswith(got)
        if not right:
            record.mixed_up.append(f"{way}, {self.cases[number]}: {got!r} instead of {alone!r}")
        kind = "whole" if leave is None else "streamed" if is_whole else "left early"
        record.kinds[f"{way}, {'threads' if caller % 2 else 'asyncio'}, {kind}"] += 1
        record.by_caller[caller] += 1
        record.waits.append(first - began)
        record.last_end = time.monotonic()

    def _fail(self, asked: tuple[str, int, int | None], error: Exception) -> None:
        self.record.errors.append(f"{asked[0]}, case {asked[1]}: {type(error).__name__}: {error}")
        self.record.last_end = time.monotonic()
        if len(self.record.errors) > 100:
            self.stop.set()


class _Sum:
    """Adds up the pieces of a stream: the engine's are chunks, LangChain's messages, LlamaIndex's tell all so far."""

    def __init__(self, way: str) -> None:
        self._way = way
        self.value: Any = Chunk() if way == "engine" else ""

    def add(self, piece: Any) -> None:
        if self._way == "llamaindex":
            self.value = piece.text
        else:
            self.value += piece if self._way == "engine" else piece.text


def resident() -> float:
    """Return this process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def watch(record: Record, stop: threading.Event, seconds: float, on_silence: Callable[[], None]) -> None:
    """Sample the memory until the time is over; end the program where nothing ends any more."""
    began = time.monotonic()
    while (now := time.monotonic()) - began < seconds and not stop.is_set():
        record.memory.append((now - began, resident()))
        if now - record.last_end > SILENCE:
            on_silence()
        stop.wait(min(1.0, seconds / 20))
    stop.set()


def die() -> None:
    """Show all stacks and end."""
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.write(f"no request has ended for {SILENCE:.0f} s\n")
    sys.stderr.flush()
    import os

    os._exit(2)


def run(seconds: float, *, callers: int = CALLERS, most: int = 24, seed: int = 0) -> dict[str, Any]:
    """Run the callers for so many seconds and return what was measured."""
    random.seed(seed)
    record = Record()
    with minicpm_core.load("demo", max_waiting=callers) as engine:
        threads_before = threading.active_count()
        asked = Callers(engine, record, most)
        with watched(engine, record):
            record.last_end = time.monotonic()
            watcher = threading.Thread(target=watch, args=(record, asked.stop, seconds, die))
            began, used = time.monotonic(), time.process_time()
            watcher.start()
            threads = [threading.Thread(target=asked.in_thread, args=(n,)) for n in range(1, callers, 2)]
            for thread in threads:
                thread.start()

            async def tasks() -> None:
                await asyncio.gather(*(asked.in_task(n) for n in range(0, callers, 2)))

            asyncio.run(tasks())
            for thread in (*threads, watcher):
                thread.join(SILENCE)
            took, used = time.monotonic() - began, time.process_time() - used
        stuck = sum(thread.is_alive() for thread in threads)
        sound = text_of(engine.generate(asked.messages(asked.cases[0]), **asked.cases[0].options))
        is_idle = not engine._worker._jobs and engine._worker._running is None
        record.waits.sort()
        counts = [record.by_caller[n] for n in range(callers)]
        ways = [[counts[n] for n in range(way, callers, 3)] for way in range(3)]
        return {
            "seconds": took,
            "processor_seconds": used,
            "callers": callers,
            "answers": sum(record.kinds.values()),
            "kinds": dict(sorted(record.kinds.items())),
            "left_early": sum(n for kind, n in record.kinds.items() if kind.endswith("left early")),
            "mixed_up": len(record.mixed_up),
            "errors": len(record.errors),
            "examples": [*record.mixed_up[:3], *record.errors[:3]],
            "overtaken": record.overtaken(),
            "fewest_answers_of_a_caller": min(counts),
            "most_answers_of_a_caller": max(counts),
            "share_of_the_slowest": min(min(way) / max(sum(way) / len(way), 1e-9) for way in ways),
            "wait_median_s": record.waits[len(record.waits) // 2] if record.waits else 0.0,
            "wait_longest_s": record.waits[-1] if record.waits else 0.0,
            "memory_first_mib": record.memory[0][1],
            "memory_last_mib": record.memory[-1][1],
            "memory_peak_mib": max(size for _, size in record.memory),
            "growth_mib_per_minute": record.slope(),
            "samples": len(record.memory),
            "stuck_callers": stuck,
            "idle_at_the_end": is_idle and sound == text_of(asked.alone[0]),
            "threads_left": threading.active_count() - threads_before,
        }


def show(row: dict[str, Any]) -> tuple[str, list[Bar]]:
    """Return the tables, and the bars."""
    kinds = format_table(("answers", "number"), list(row["kinds"].items()))
    names = [
        "seconds", "processor_seconds", "answers", "left_early", "wait_median_s", "wait_longest_s",
        "fewest_answers_of_a_caller", "most_answers_of_a_caller", "memory_first_mib", "memory_last_mib",
        "memory_peak_mib", "growth_mib_per_minute",
    ]  # fmt: skip
    figures = format_table(("", "measured"), [(name.replace("_", " "), row[name]) for name in names])
    bars = [
        Bar("answers that differ from the lone run's", row["mixed_up"], 0, at_most=True),
        Bar("errors", row["errors"], 0, at_most=True),
        Bar("requests begun before an earlier one", row["overtaken"], 0, at_most=True),
        Bar("callers that did not come back", row["stuck_callers"], 0, at_most=True),
        Bar("memory, MiB per minute", row["growth_mib_per_minute"], GROWTH, at_most=True),
        Bar("share of streams and answers left early", row["left_early"] / max(row["answers"], 1), 0.2),
        Bar("answers of the slowest caller, of the mean of its kind", row["share_of_the_slowest"], 0.5),
    ]
    return f"{kinds}\n\n{figures}", bars


def main() -> int:
    """Run it; the exit code is 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--callers", type=int, default=CALLERS)
    parser.add_argument("--answer", type=int, default=24, help="tokens of an answer at most")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    row = run(options.seconds, callers=options.callers, most=options.answer)
    table, bars = show(row)
    if options.json:
        print(json.dumps(row, ensure_ascii=False))
    else:
        machine = "; ".join(f"{name} {value}" for name, value in describe_machine().items())
        print(f"{table}\n\n{format_bars(bars)}\n\n{machine}")
        for example in row["examples"]:
            print(example)
    return int(not all(bar.met for bar in bars))


if __name__ == "__main__":
    sys.exit(main())
