"""The sections of a recipe, one module each, as pydantic models that validate what they are given."""
