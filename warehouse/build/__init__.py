"""What SQL asks of one build: its views, what is pending, curation, audits, games."""
