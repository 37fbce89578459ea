"""Small tools that do not depend on the loop: errors, ids, durations, atomic files, serialization, API keys."""
