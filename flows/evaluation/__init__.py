"""The commands that judge models and measure recorded answers."""
