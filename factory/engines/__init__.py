"""Engines behind one protocol: vLLM, OpenAI-compatible servers, transformers translators."""
