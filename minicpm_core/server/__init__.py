"""The engine that asks an OpenAI-compatible server instead of loading a model."""
