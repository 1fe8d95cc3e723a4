"""Writes the seeds of the corpus: `python -m tests.fuzzing.seeds`; small good files of every kind that is read."""
# ruff: noqa: E501

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzzing.bodies import BODIES_SEEDS
from tests.fuzzing.checkpoints import FIELDS, write_gguf
from tests.fuzzing.target import CORPUS, write_example


def pictures() -> Iterator[tuple[str, bytes]]:
    from PIL import Image, features

    colour = Image.linear_gradient("L").resize((24, 18)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "png": (colour, {"exif": exif}),
        "png-palette": (colour.convert("P"), {"transparency": 3}),
        "png-grey16": (colour.convert("I;16"), {}),
        "png-alpha": (colour.convert("RGBA"), {}),
        "png-animated": (colour, {"save_all": True, "append_images": [colour.rotate(180)]}),
        "jpeg": (colour, {"exif": exif}),
        "jpeg-progressive": (colour, {"progressive": True}),
        "jpeg-cmyk": (colour.convert("CMYK"), {}),
        "gif": (colour, {"save_all": True, "append_images": [colour.rotate(180)]}),
        "webp": (colour, {}),
        "webp-lossless": (colour.convert("RGBA"), {"lossless": True}),
        "webp-animated": (colour, {"save_all": True, "append_images": [colour.rotate(180)]}),
        "tiff": (colour, {"save_all": True, "append_images": [colour.rotate(180)]}),
        "tiff-lzw": (colour, {"compression": "tiff_lzw"}),
        "tiff-deflate": (colour, {"compression": "tiff_adobe_deflate"}),
        "tiff-jpeg": (colour, {"compression": "jpeg"}),
        "tiff-group4": (colour.convert("1"), {"compression": "group4"}),
        "bmp": (colour, {}),
        "bmp-palette": (colour.convert("P"), {}),
        "ppm": (colour, {}),
        "ico": (colour.resize((16, 16)), {}),
    } | ({"avif": (colour, {})} if features.check("avif") else {})
    for name, (image, options) in kinds.items():
        stream = io.BytesIO()
        image.save(stream, name.partition("-")[0].upper(), **options)
        yield f"seed-{name}", stream.getvalue()


def pdf() -> Iterator[tuple[str, bytes]]:
    from fpdf import FPDF
    from PIL import Image

    from tests.office_files import make_pdf

    yield "seed-text", make_pdf()
    plain = FPDF()
    plain.set_compression(False)
    plain.add_page()
    plain.set_font("Helvetica", size=12)
    plain.start_section("Rules")
    plain.multi_cell(0, 6, "Dogs are wel-\ncome (5 euros).", link="https://example.com")
    plain.add_page()
    yield "seed-plain", bytes(plain.output())
    scanned = FPDF()
    scanned.add_page()
    scanned.image(Image.linear_gradient("L").resize((40, 30)), 10, 10, 30)
    yield "seed-picture", bytes(scanned.output())
    locked = FPDF()
    locked.set_encryption("owner", "user")
    locked.add_page()
    yield "seed-password", bytes(locked.output())
    yield (
        "seed-small",
        (
            b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R/Outlines 5 0 R>>endobj\n"
            b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
            b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R/Resources<</Font<</F 7 0 R>>>>>>endobj\n"
            b"4 0 obj<</Length 37>>stream\nBT /F 12 Tf 10 50 Td (Hello) Tj ET Q q\nendstream endobj\n"
            b"5 0 obj<</First 6 0 R/Last 6 0 R/Count 1>>endobj\n6 0 obj<</Title(Hello)/Parent 5 0 R/Dest[3 0 R/Fit]>>endobj\n"
            b"7 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\ntrailer<</Root 1 0 R/Size 8>>\n%%EOF\n"
        ),
    )


def containers() -> Iterator[tuple[str, bytes]]:
    from tests.office_files import make_docx, make_epub, make_pptx, make_xlsx, make_zip

    yield "seed-docx", _smaller(make_docx())
    yield "seed-pptx", _smaller(make_pptx())
    yield "seed-xlsx", _smaller(make_xlsx())
    yield "seed-epub", make_epub()
    yield (
        "seed-zip",
        make_zip({"a.txt": "Rent is due.", "b/c.md": "# Title\nText", "d.html": "<h1>x</h1>", "中.csv": "a,b\n1,2"}),
    )


def _smaller(data: bytes) -> bytes:
    """Return an archive without its pictures, packed as tightly as may be."""
    import zipfile

    from tests.office_files import make_zip

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return make_zip({i.filename: archive.read(i) for i in archive.infolist() if not i.filename.endswith(".jpeg")})


def texts() -> Iterator[tuple[str, bytes]]:
    yield "seed-utf8", "Chapter 1\n\nThe lamp is on. 灯亮着。\n\n第二章 山\n\nEnd.".encode()
    yield "seed-utf16", "The lamp 灯".encode("utf-16")
    yield "seed-gb18030", ("第一章 灯亮着。山上有一座庙。" * 4).encode("gb18030")
    yield (
        "seed-markdown",
        b"---\ntitle: x\n---\n# Title\n\ntext\n\n## Part\n\n```python\n# no heading\n```\n| a | b |\n|---|---|\n",
    )
    yield (
        "seed-html",
        (
            b'<!doctype html><meta charset="utf-8"><title>T</title><nav>n</nav><h1>T</h1><p>a<br>b</p><pre>c\n d</pre>'
            b"<table><tr><th>x</th><td>y</td></tr></table><script>no</script><img alt='lamp'>"
        ),
    )
    yield "seed-csv", b'name;pay\nBen;"4,200"\n"a\nb";1\n'
    yield "seed-code", b"class Lamp:\n    def switch(self):\n        self.on = on\n\n\ndef main() -> None:\n    pass\n"


def configs() -> Iterator[tuple[str, Any]]:
    from tests.toy_families import CONFIGS
    from tests.toy_minicpmv import write_minicpmv
    from tests.toy_vision import has_class, write_native

    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    for name, config in CONFIGS.items():
        yield f"seed-{name}.json", {"config": config, "generation_config": {"eos_token_id": [1, 3]}}
    more = {"quantization_config": quantization, "auto_map": {"AutoConfig": "x.Config"}}
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    template = {
        "chat_template": [{"name": "default", "template": "{{ messages }}"}],
        "tokenizer_class": "LlamaTokenizer",
    }
    yield "seed-quantized.json", {"config": CONFIGS["minicpm5"] | more, "index": index, "tokenizer_config": template}
    with tempfile.TemporaryDirectory() as made:
        for version in ("2.0", "2.5", "2.6", "4.0", "4.5"):
            yield f"seed-v-{version}.json", _read(write_minicpmv(Path(made, version), version))
        for kind in filter(has_class, ("minicpmv4_6", "minicpm_ocr")):
            yield f"seed-{kind}.json", _read(write_native(Path(made, kind), kind, weights=False))


def _read(folder: Path | None) -> dict[str, Any]:
    assert folder
    names = ("config", "preprocessor_config", "generation_config")
    return {name: json.loads(file.read_text()) for name in names if (file := folder / f"{name}.json").is_file()}


def safetensors() -> Iterator[tuple[str, bytes]]:
    tensors = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
        "c": {"dtype": "U8", "shape": [0], "data_offsets": [28, 28]},
    }
    for name, header in (("small", tensors), ("empty", {})):
        raw = json.dumps(header).encode()
        yield f"seed-{name}", struct.pack("<Q", len(raw)) + raw + bytes(28 if header else 0)


def gguf() -> Iterator[tuple[str, bytes]]:
    for name, fields in zip(("bpe", "spm"), FIELDS, strict=True):
        yield f"seed-{name}", write_gguf(fields)


def films() -> Iterator[tuple[str, bytes]]:
    import av
    from PIL import Image

    picture = Image.linear_gradient("L").resize((32, 24)).convert("RGB")
    kinds = {
        "mp4": ("mp4", "mpeg4"), "mp4-h264": ("mp4", "libx264"), "mov-mjpeg": ("mov", "mjpeg"), "mkv-vp8": ("matroska", "libvpx"),
        "webm-vp9": ("webm", "libvpx-vp9"), "avi": ("avi", "mpeg4"), "avi-mjpeg": ("avi", "mjpeg"), "ts": ("mpegts", "mpeg2video"),
        "mpeg": ("mpeg", "mpeg1video"), "flv": ("flv", "flv"), "asf": ("asf", "wmv2"), "gif": ("gif", "gif"),
        "mkv-ffv1": ("matroska", "ffv1"), "mov-png": ("mov", "png"),
    }  # fmt: skip
    for name, (container, codec) in kinds.items():
        stream = io.BytesIO()
        with av.open(stream, "w", format=container) as film:
            track = film.add_stream(codec, rate=25)
            track.width, track.height = picture.size
            track.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8", "png": "rgb24"}.get(codec, "yuv420p")
            for turned in range(5):
                film.mux(track.encode(av.VideoFrame.from_image(picture.rotate(30 * turned))))
            film.mux(track.encode())
        yield f"seed-{name}", stream.getvalue()


def bodies() -> Iterator[tuple[str, Any]]:
    yield from ((f"seed-{name}.json", body) for name, body in BODIES_SEEDS.items())


def talks(kinds: tuple[str, ...], content: str) -> Iterator[tuple[str, Any]]:
    turns = [{"kind" if kinds else "role": role, "content": content} for role in kinds or ("system", "user")]
    yield "seed-talk.json", {"messages": turns}


KINDS = {
    "pictures": pictures, "pdf": pdf, "containers": containers, "texts": texts, "configs": configs,
    "safetensors": safetensors, "gguf": gguf, "films": films, "gguf_bodies": bodies,
    "langchain_messages": lambda: talks(("system", "human", "ai", "tool"), "Hello"),
    "llamaindex_messages": lambda: talks(("system", "user", "assistant", "tool"), "Hello"),
    "engine_messages": lambda: talks((), "Hello"),
}  # fmt: skip

if __name__ == "__main__":
    for kind, make in KINDS.items():
        (CORPUS / kind).mkdir(parents=True, exist_ok=True)
        for name, example in make():
            (CORPUS / kind / name).write_bytes(write_example(example))
