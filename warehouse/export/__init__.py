"""Exports: versions of training shards with a card and a manifest."""
