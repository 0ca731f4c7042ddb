"""One build of a recipe, from its prompts to its training shards."""
