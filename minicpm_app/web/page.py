"""The page itself: its parts, and which of them does what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from minicpm_app.web.appearance import (
    CLICKS,
    CONFIRM_DELETION,
    FOLLOW,
    KEEP_COLLECTION,
    KEEP_LANGUAGE,
    NAME_LANGUAGE,
    REFUSE,
    SHOW_SOURCE,
    WHO,
)
from minicpm_app.web.collection import Collection
from minicpm_app.web.drawing import draw_files, draw_status
from minicpm_app.web.events import Desk, Refused
from minicpm_app.web.library import Library
from minicpm_app.web.texts import NAMES, choose_language, say
from minicpm_app.web.uploads import Uploads
from minicpm_core.rag import Language

_NONE = ""
"""The choice of no collection."""


def make_page(chat: Any, library: Library) -> gr.Blocks:
    """Return the page for a ChatMiniCPM and a library of collections."""
    return _Page(Desk(chat, library)).blocks


class _Page:
    """The parts of the page and their events."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.library = desk.library
        self.uploads = Uploads(desk.library)
        with gr.Blocks(title=say("en", "title"), analytics_enabled=False, delete_cache=(3600, 3600)) as self.blocks:
            self._lay_out()
            self._connect()
        self.blocks.queue(default_concurrency_limit=None, api_open=False)

    def _lay_out(self) -> None:
        self.visitor, self.language = gr.State(""), gr.State("en")
        self.id_of_tab, self.wish, self.wanted = (gr.Textbox(visible=False) for _ in range(3))
        self.sure = gr.Checkbox(visible=False)
        self.strings = gr.HTML(visible="hidden")
        self.ticks = gr.Timer(0.4, active=False)
        with gr.Row(elem_id="mc-top"):
            self.status = gr.HTML(elem_id="mc-status", scale=5)
            choices = [(name, code) for code, name in NAMES.items()]
            self.switch = gr.Radio(
                choices, show_label=False, container=False, elem_id="mc-language", scale=1, min_width=190
            )
        with gr.Row(elem_id="mc-body"):
            with gr.Column(scale=3, min_width=250, elem_id="mc-left"):
                self.collection = gr.Dropdown([], interactive=True, filterable=False, elem_id="mc-collection")
                with gr.Accordion(open=False, elem_id="mc-new") as self.new:
                    self.name = gr.Textbox(max_length=80, elem_id="mc-name")
                    self.create = gr.Button(size="sm", elem_id="mc-create")
                    self.delete = gr.Button(size="sm", variant="stop", elem_id="mc-delete")
                self.drop = gr.File(file_count="multiple", show_label=False, elem_id="mc-drop", height=92)
                self.limits = gr.HTML(elem_id="mc-limits")
                self.files = gr.HTML(js_on_load=CLICKS + REFUSE, elem_id="mc-files")
            with gr.Column(scale=6, min_width=320, elem_id="mc-middle"):
                with gr.Column(elem_id="mc-talk-box"):
                    self.talk = gr.HTML(js_on_load=CLICKS + FOLLOW, elem_id="mc-talk")
                    self.live = gr.HTML(js_on_load=CLICKS + FOLLOW, elem_id="mc-live")
                self.attached = gr.HTML(js_on_load=CLICKS, elem_id="mc-attached")
                self.question = gr.Textbox(
                    lines=1, max_lines=6, show_label=False, autofocus=True, elem_id="mc-question", max_length=20_000
                )
                with gr.Row():
                    self.clear = gr.Button(size="md", min_width=90, elem_id="mc-clear")
                    kinds = ["image"]
                    self.pictures = gr.UploadButton(
                        file_count="multiple",
                        file_types=kinds,
                        size="md",
                        min_width=90,
                        visible=self.desk.sees,
                        elem_id="mc-pictures",
                    )
                    self.stop = gr.Button(size="md", variant="stop", min_width=90, interactive=False, elem_id="mc-stop")
                    self.send = gr.Button(size="md", variant="primary", min_width=90, elem_id="mc-send")
            with gr.Column(scale=5, min_width=300, elem_id="mc-right"):
                self.source = gr.HTML(elem_id="mc-source")

    def _connect(self) -> None:
        silent: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        at_once: dict[str, Any] = {**silent, "queue": False}
        who: list[Any] = [self.visitor, self.language]
        named = [
            self.strings, self.status, self.switch, self.collection, self.new, self.name, self.create, self.delete,
            self.limits, self.question, self.clear, self.pictures, self.stop, self.send,
        ]  # fmt: skip
        shown = [*named, self.files, self.talk, self.live, self.source, self.attached, self.ticks]
        self.blocks.load(
            self._load,
            [self.id_of_tab, self.wish, self.wanted],
            [self.visitor, self.language, *shown],
            js=WHO,
            **silent,
        )
        self.switch.change(None, [self.switch], js=NAME_LANGUAGE, **at_once)
        asked = [self.switch, self.visitor, self.collection]
        self.switch.input(self._switch, asked, [self.language, *shown], js=KEEP_LANGUAGE, **at_once)
        files = [self.files, self.question, self.ticks]
        self.collection.input(self._choose, [self.collection, self.language], files, js=KEEP_COLLECTION, **at_once)
        chosen = [self.collection, *files]
        sure = [self.collection, self.switch, self.sure]
        dropped = [self.drop, self.collection, self.language]
        for done in (
            self.create.click(self._create, [self.name, self.language], [self.name, self.new, *chosen], **at_once),
            self.delete.click(self._delete, sure, chosen, js=CONFIRM_DELETION, **at_once),
            self.drop.upload(self._upload, dropped, [self.drop, *chosen], **silent),
            self.files.click(self._edit_files, [self.collection, self.language], chosen, **silent),
        ):
            done.success(None, [self.collection], js=KEEP_COLLECTION, **at_once)
        told = [self.collection, self.language, self.files]
        self.ticks.tick(self._tell_files, told, [self.files, self.ticks], **at_once)
        outputs = [self.question, self.talk, self.live, self.send, self.stop, self.attached]
        for asked in (self.send.click, self.question.submit):
            asked(self._ask, [*who, self.collection, self.question], outputs, concurrency_limit=None, **silent)
        self.stop.click(self._stop, [self.visitor], [self.stop], **at_once)
        self.clear.click(self._clear, who, [self.talk, self.live, self.source, self.attached], **at_once)
        self.pictures.upload(self._attach, [*who, self.pictures], [self.attached, self.pictures], **silent)
        self.attached.click(self._detach, who, [self.attached], **at_once)
        for area in (self.talk, self.live):
            area.click(self._open, who, [self.source], **silent).success(None, js=SHOW_SOURCE, **at_once)

    async def _load(self, id_: str, wish: str, wanted: str) -> list[Any]:
        language = choose_language(wish)
        self.desk.stop(id_)  # of a tab that was loaded again while an answer was written
        collections = self.library.collections()
        known = [collection.id for collection in collections]
        choice = wanted if wanted in known else known[0] if known and not wanted else _NONE
        return [id_, language, *self._show(language, choice), *self._content(id_, language, choice)]

    def _switch(self, language: Language, visitor: str, choice: str) -> list[Any]:
        return [language, *self._show(language, choice), *self._content(visitor, language, choice)]

    def _content(self, visitor: str, language: Language, choice: str) -> list[Any]:
        files = self._files(choice, language)
        talk, attached = self.desk.draw(visitor, language), self.desk.draw_attached(visitor, language)
        return [files, talk, "", _hint(language), attached, self._watching(choice)]

    def _show(self, language: Language, choice: str) -> list[Any]:
        """Return the parts with their texts, in the order of `named`."""
        text = partial(say, language)
        limits = self.library.limits
        kinds = "limits_seeing" if self.library.sight.sees else "limits"
        told = text(kinds, size=limits.megabytes, count=limits.count)
        return [
            f"<style>:root {{ --mc-drop: {json.dumps(text('drop'), ensure_ascii=False)}; }}</style>",
            draw_status(self.desk.facts(language), language),
            gr.update(value=language),
            self._collections(language, choice) | {"label": text("collection"), "info": text("collection_info")},
            gr.update(label=text("new_collection")),
            gr.update(label=text("new_name")),
            gr.update(value=text("create")),
            gr.update(value=text("delete")),
            f'<p class="mc-quiet" data-most-bytes="{limits.megabytes * 2**20}">{told}</p>',
            gr.update(label=text("ask"), placeholder=text("ask_here" if choice else "chat_here")),
            gr.update(value=text("clear")),
            gr.update(label=text("pictures")),
            gr.update(value=text("stop")),
            gr.update(value=text("send")),
        ]

    def _collections(self, language: Language, choice: str) -> dict[str, Any]:
        choices = [(collection.name, collection.id) for collection in self.library.collections()]
        update: dict[str, Any] = gr.update(choices=[*choices, (say(language, "no_collection"), _NONE)], value=choice)
        return update

    def _choose(self, choice: str, language: Language) -> list[Any]:
        hint = say(language, "ask_here" if choice else "chat_here")
        return [self._files(choice, language), gr.update(placeholder=hint), self._watching(choice)]

    def _create(self, name: str, language: Language) -> list[Any]:
        try:
            collection = self.library.create(name or "", language)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return ["", gr.update(open=False), *self._select(collection.id, language)]

    def _delete(self, choice: str, language: Language, sure: bool) -> list[Any]:
        collection = self.library.find(choice)
        if collection and collection.chroma_url and sure:
            gr.Warning(say(language, "delete_served"))
        elif collection and sure:
            self.library.delete(collection)
            choice = next((other.id for other in self.library.collections()), _NONE)
        return self._select(choice, language)

    def _select(self, choice: str, language: Language) -> list[Any]:
        return [self._collections(language, choice), *self._choose(choice, language)]

    def _upload(self, files: list[str] | None, choice: str, language: Language) -> list[Any]:
        paths, limit = [Path(file) for file in files or []], self.library.limits.count
        if len(paths) > limit:
            gr.Warning(say(language, "too_many", given=len(paths), count=limit))
        elif paths:
            collection = self._target(choice, language)
            self.uploads.put(collection, paths, language)
            choice = collection.id
        return [None, *self._select(choice, language)]

    def _target(self, choice: str, language: Language) -> Collection:
        """Return the chosen collection; where none is, the one for such files."""
        return self.library.find(choice) or self.library.obtain(say(language, "first_collection"), language)

    def _tell_files(self, choice: str, language: Language, shown: str) -> list[Any]:
        watching = self._watching(choice)  # before the list, which then has the last change
        files = self._files(choice, language)
        return [gr.skip() if files == shown else files, watching]

    def _files(self, choice: str, language: Language) -> str:
        collection = self.library.find(choice)
        return draw_files(self.uploads.files(collection), language, self.library.count_elsewhere(collection))

    def _watching(self, choice: str) -> Any:
        return gr.Timer(active=self.uploads.is_busy(self.library.find(choice)))

    def _edit_files(self, choice: str, language: Language, event: gr.EventData) -> list[Any]:
        refused, name, collection = event._data.get("refused"), event._data.get("file"), self.library.find(choice)
        if refused:
            collection = self._target(choice, language)
            reason = say(language, "too_large", size=self.library.limits.megabytes)
            self.uploads.refuse(collection, [str(name)[:255] for name in refused[:100]], reason)
        elif collection and isinstance(name, str):
            self.uploads.remove(collection, name)
        return self._select(collection.id if collection else choice, language)

    async def _ask(self, visitor: str, language: Language, choice: str, question: str) -> AsyncIterator[list[Any]]:
        busy = [gr.update(interactive=False), gr.update(interactive=True), ""]
        first = True
        try:
            async for over, live in self.desk.ask(visitor, language, choice, question or ""):
                yield ["" if first else gr.skip(), over, live, *busy]
                first = False
        except ValueError as error:  # Refused, or a tab of before a restart
            gr.Warning(str(error))
            yield [gr.skip()] * 6
            return
        yield [gr.skip(), gr.skip(), gr.skip(), gr.update(interactive=True), gr.update(interactive=False), ""]

    async def _stop(self, visitor: str) -> Any:
        self.desk.stop(visitor)
        return gr.update(interactive=False)

    async def _clear(self, visitor: str, language: Language) -> list[str]:
        self.desk.clear(visitor)
        return [self.desk.draw(visitor, language), "", _hint(language), ""]

    def _attach(self, visitor: str, language: Language, files: list[str] | None) -> tuple[str, None]:
        try:
            self.desk.attach(visitor, [Path(file) for file in files or []], language)
        except Refused as error:
            gr.Warning(str(error))
        return self.desk.draw_attached(visitor, language), None

    def _detach(self, visitor: str, language: Language, event: gr.EventData) -> str:
        self.desk.detach(visitor, int(event._data["picture"]))
        return self.desk.draw_attached(visitor, language)

    async def _open(self, visitor: str, language: Language, event: gr.EventData) -> str:
        try:
            return await self.desk.open_source(visitor, language, int(event._data["turn"]), int(event._data["n"]))
        except (Refused, ValueError, OSError, KeyError, TypeError) as error:
            raise gr.Error(str(error), print_exception=False) from error


def _hint(language: Language) -> str:
    """Return what stands where sources will be shown."""
    return f'<p class="mc-quiet mc-hint">{say(language, "source_here")}</p>'
