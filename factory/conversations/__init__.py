"""Conversations in the forms that data sets have."""
