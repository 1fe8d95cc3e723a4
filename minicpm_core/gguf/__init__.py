"""Models in GGUF files: llama.cpp computes logits, all else is the engine's own."""
