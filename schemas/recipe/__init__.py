"""What a recipe may say: one module a section, each a model that checks what it is given."""
