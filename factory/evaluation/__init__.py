"""Evaluation as pure functions over rows: win rates by language, and language confusion."""
