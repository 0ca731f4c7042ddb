"""The lake: the one door to the tables, its catalog, its locks and its care."""
