"""What the page says, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from minicpm_core.rag import Language

TEXTS: Mapping[str, tuple[str, str]] = {
    # name: (English, Chinese)
    "title": ("MiniCPM, with your documents", "MiniCPM 文档问答"),
    "model": ("Model", "模型"),
    "memory": ("Memory", "内存"),
    "context": ("Context", "上下文"),
    "tokens": ("tokens", "个 token"),
    "sees": ("sees pictures", "能看图片"),
    "collection": ("Collection", "文档集"),
    "collection_info": ("Questions are answered from its files", "根据其中的文件回答"),
    "no_collection": ("No documents, just chat", "不用文档，只聊天"),
    "new_collection": ("New or delete", "新建或删除"),
    "first_collection": ("My documents", "我的文档"),
    "new_name": ("Name of the new collection", "新文档集的名称"),
    "create": ("Create", "新建"),
    "delete": ("Delete collection", "删除文档集"),
    "delete_sure": (
        "Delete this collection, its copies of the files and its index?",
        "删除此文档集、其中的文件副本和索引？",
    ),
    "delete_served": (
        "This collection lies on a Chroma server, which others may use; it is shown as long as the page is started "
        "with --chroma-url.",
        "此文档集在 Chroma 服务器上，可能有其他人在用；只要启动时带 --chroma-url，就会显示。",
    ),
    "files": ("Files", "文件"),
    "drop": ("Drop files here, or tap to choose", "将文件拖到这里，或点击选择"),
    "limits": (
        "PDF, Word, PowerPoint, Excel, CSV, HTML, Markdown, text, EPUB, code, zip; "
        "up to {size} MB each, {count} at a time",
        "PDF、Word、PowerPoint、Excel、CSV、HTML、Markdown、文本、EPUB、代码、zip；"
        "每个不超过 {size} MB，每次最多 {count} 个",
    ),
    "limits_seeing": (
        "PDF (scanned ones too), pictures, Word, PowerPoint, Excel, CSV, HTML, Markdown, text, EPUB, code, zip; "
        "up to {size} MB each, {count} at a time",
        "PDF（包括扫描件）、图片、Word、PowerPoint、Excel、CSV、HTML、Markdown、文本、EPUB、代码、zip；"
        "每个不超过 {size} MB，每次最多 {count} 个",
    ),
    "no_files": ("No files yet.", "还没有文件。"),
    "waiting_file": ("waiting", "等待中"),
    "reading": ("reading", "读取中"),
    "looking": ("looking at page {page} of {pages}", "正在看第 {page} 页，共 {pages} 页"),
    "embedding": ("{chunks} passages so far", "已处理 {chunks} 段"),
    "ready": ("ready", "就绪"),
    "partly": ("added, but not all of it: {reason}", "已加入，但不完整：{reason}"),
    "failed": ("not added", "未加入"),
    "elsewhere": (
        "On the server too, from other places: {count} files.",
        "服务器上还有其他位置的文件：{count} 个。",
    ),
    "scan_unread": (
        "has pages without text (a scan?), and the model reads text only; start the page with a model that sees "
        "(--model or --page-model)",
        "的页面没有文字（可能是扫描件），而当前模型只能读文字；请用能看图片的模型启动（--model 或 --page-model）",
    ),
    "picture_unread": (
        "is a picture, and the model reads text only; start the page with a model that sees (--model or --page-model)",
        "是图片，而当前模型只能读文字；请用能看图片的模型启动（--model 或 --page-model）",
    ),
    "needs_sight": (
        "start the page with a model that sees (--model or --page-model)",
        "请用能看图片的模型启动（--model 或 --page-model）",
    ),
    "remove": ("Remove", "移除"),
    "ask": ("Ask a question", "请输入问题"),
    "ask_here": ("Ask about your files …", "就您的文件提问……"),
    "chat_here": ("Say something …", "说点什么……"),
    "send": ("Ask", "提问"),
    "stop": ("Stop", "停止"),
    "clear": ("New chat", "新对话"),
    "pictures": ("Add pictures", "添加图片"),
    "pictures_alone": (
        "Your next question is answered from these pictures, without the documents.",
        "下一个问题只根据这些图片回答，不查文档。",
    ),
    "hello": (
        "Drop files, and ask about them. Answers name their sources; click a number to see it.",
        "放入文件，然后提问。回答会注明出处，点击编号即可查看。",
    ),
    "back": ("Back to the answer", "返回回答"),
    "thinking": ("Thinking …", "思考中……"),
    "queued": ("Waiting for other answers: {count} ahead of yours …", "正在等待其他回答，前面还有 {count} 个……"),
    "stopped": ("Stopped.", "已停止。"),
    "reasoning": ("How the model came to it", "思考过程"),
    "sources": ("Sources", "出处"),
    "page": ("page {page}", "第 {page} 页"),
    "source_here": (
        "Click a number in an answer to see the passage in its page.",
        "点击回答中的编号，在原文页面中查看段落。",
    ),
    "source_gone": ("{source} is no longer in the collection; ask again.", "{source} 已不在文档集中，请重新提问。"),
    "source_changed": (
        "{source} has changed since the answer; this is the passage as it was.",
        "{source} 在回答之后已更改，以下是当时的段落。",
    ),
    "source_elsewhere": ("{source} is not on this machine; this is its text.", "{source} 不在本机，以下是其文字。"),
    "as_read": ("The passage as it was read:", "读到的段落："),
    "dropped": (
        "Left out, since the context window has no room: {places}",
        "上下文放不下，以下段落未交给模型：{places}",
    ),
    "used": ("{used} of {window} tokens", "{used} / {window} 个 token"),
    "no_question": ("Type a question first.", "请先输入问题。"),
    "busy": ("Your last question is still being answered; stop it first.", "上一个问题还在回答中，请先停止。"),
    "empty_collection": (
        "This collection has no files yet; drop some, or choose “No documents, just chat”.",
        "此文档集还没有文件，请先放入文件，或选择“不用文档，只聊天”。",
    ),
    "too_large": ("is larger than {size} MB; split it", "超过 {size} MB，请拆分"),
    "too_many": (
        "{given} files were given; accepted are {count} at a time",
        "给了 {given} 个文件，每次最多 {count} 个",
    ),
    "full": (
        "the collection holds {count} files, which is the most; make another one",
        "文档集已满 {count} 个文件，请新建一个",
    ),
    "wrong_kind": ("is of a kind that is not read; accepted are {kinds}", "是不支持的类型，支持 {kinds}"),
    "bad_name": ("A name has 1 to 80 characters.", "名称须为 1 到 80 个字符。"),
    "name_taken": ("There is a collection “{name}” already.", "已经有名为“{name}”的文档集。"),
    "most_collections": (
        "There are {count} collections, which is the most; delete one.",
        "已有 {count} 个文档集，请先删除一个。",
    ),
    "bad_picture": ("{name} is no picture that can be read.", "{name} 不是可读取的图片。"),
    "most_pictures": ("{count} pictures at most go with a question.", "一个问题最多附带 {count} 张图片。"),
    "error": ("The answer failed: {reason}", "回答失败：{reason}"),
}
NAMES: Mapping[Language, str] = {"en": "English", "zh": "中文"}


def say(language: Language, name: str, /, **values: object) -> str:
    """Return the text called `name` in the language, with its values filled in."""
    text = TEXTS[name][language == "zh"]
    return text.format(**values) if values else text


def choose_language(wanted: str) -> Language:
    """Return the page's language for a browser's (`navigator.language`, such as "zh-CN"); English for all others."""
    return "zh" if wanted.lower().startswith("zh") else "en"
