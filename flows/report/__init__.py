"""The page that shows a build: its figures, charts and template."""
