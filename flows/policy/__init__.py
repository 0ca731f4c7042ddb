"""The policy of a recipe: trained step by step on what builds export, and judged after each."""
