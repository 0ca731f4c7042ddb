"""The handbook's reference, made of the code that it describes: ``python -m handbook`` writes its pages and builds the site."""
