"""What small recipes of these tests begin with; what follows begins on line 8."""

PROMPTS = """\
name = "small"
languages = ["en", "he"]
[[prompts]]
name = "p"
path = "p.jsonl"
language = "en"
columns = { prompt = "q" }
"""
