"""All targets."""

from __future__ import annotations

from tests.fuzzing.bodies import BODIES
from tests.fuzzing.checkpoints import CONFIGS, GGUF, SAFETENSORS
from tests.fuzzing.files import CONTAINERS, PDFS, PICTURES, TEXTS
from tests.fuzzing.films import FILMS
from tests.fuzzing.messages import DICTS, LANGCHAIN, LLAMAINDEX

TARGETS = (LANGCHAIN, LLAMAINDEX, DICTS, PICTURES, FILMS, PDFS, CONTAINERS, TEXTS, CONFIGS, SAFETENSORS, GGUF, BODIES)
