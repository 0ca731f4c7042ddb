"""The handbook's reference, made of the code that it describes: ``python -m flows.handbook`` writes its pages and builds the site."""
