"""The bundled trainer: SFT and preference training of causal language models on plain torch and transformers."""
