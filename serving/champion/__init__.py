"""The champion, the model that scores: it is fetched, examined, swapped in, and replaced at every promotion."""
