"""What a text holds: sentences, code, formulas and links, and the script it is written in."""
