"""The champion, the model that scores: fetched, examined, swapped in, and replaced with every promotion."""
