"""How the page looks, and what it does in the browser by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from minicpm_app.web.texts import NAMES, say

_HERE = Path(__file__).parent
_FONT = [
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "sans-serif",
]
APPEARANCE: dict[str, Any] = {
    "theme": gr.themes.Soft(primary_hue="teal", font=_FONT, font_mono=["ui-monospace", "Consolas", "monospace"]),
    "css_paths": [_HERE / "page.css"],
    # Outside of what css_paths may style.
    "head": "<style>@media (max-width: 899px) { .main.fillable { padding: .5rem .6rem !important; } }</style>",
    "js": (_HERE / "page.js").read_text(encoding="utf-8").partition("\n")[2],
}
"""What `launch` is given: fonts of the system, so that none are asked for elsewhere."""

CLICKS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('.mc-cite, .mc-remove');
  if (button) trigger('click', {...button.dataset});
});"""
"""Buttons in HTML of ours tell the server what they stand for."""
REFUSE = "window.minicpmRefuse = (refused) => trigger('click', {refused});"
"""Files that are too large are told by their names, and not sent."""
FOLLOW = """const box = element.closest('#mc-talk-box');
if (box.follow === undefined) {
  box.follow = true;
  box.addEventListener('scroll', () => { box.follow = box.scrollHeight - box.scrollTop - box.clientHeight < 60; });
}
let empty = true;
new MutationObserver(() => {
  const none = !element.querySelector('.mc-answer');
  if (empty && !none) box.follow = true;
  empty = none;
  if (box.follow) box.scrollTop = box.scrollHeight;
}).observe(element, {childList: true, subtree: true, characterData: true});"""
"""The end of the conversation stays in sight, until one scrolls up in it; a new question brings it back."""

WHO = "() => [window.minicpmVisitor(), window.minicpmLanguage(), window.minicpmCollection()]"
KEEP_LANGUAGE = "(choice, ...rest) => { localStorage.setItem('minicpm-language', choice); return [choice, ...rest]; }"
KEEP_COLLECTION = "(id, ...rest) => { localStorage.setItem('minicpm-collection', id || ''); return [id, ...rest]; }"
NAME_LANGUAGE = f"""(code) => {{
  document.documentElement.lang = {{en: 'en', zh: 'zh-CN'}}[code];
  document.title = {json.dumps({code: say(code, "title") for code in NAMES})}[code];
}}"""
CONFIRM_DELETION = f"""(id, code) => {{
  const question = {json.dumps({code: say(code, "delete_sure") for code in NAMES})}[code];
  return [id, code, id ? window.confirm(question) : false];
}}"""
SHOW_SOURCE = "() => setTimeout(window.minicpmShowSource, 80)"
