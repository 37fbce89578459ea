"""The champion: the model that scores, fetched, examined, swapped in by one assignment, and replaced with every promotion."""
