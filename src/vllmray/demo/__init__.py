"""`vllmray demo`: the whole product on one machine, with a model small enough for it."""
