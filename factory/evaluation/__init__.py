"""Evaluation: who answers better, in which language, and whether in the right one. Pure functions over rows."""
