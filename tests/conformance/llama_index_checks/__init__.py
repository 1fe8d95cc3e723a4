"""The parts of tests/conformance/llama_index.py."""
