"""Small tools that know nothing of the loop: errors, ids, durations, atomic files, serialization, API keys."""
