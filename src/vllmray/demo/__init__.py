"""`vllmray demo`: a complete cluster on one machine, with a model that is small enough for it."""
