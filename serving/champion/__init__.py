"""The model that answers: fetched, examined, swapped in by one reference, and followed from promotion to promotion."""
