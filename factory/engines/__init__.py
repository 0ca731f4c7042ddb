"""The machines behind one Protocol: vLLM, OpenAI-compatible servers, transformers translators, fastText."""
