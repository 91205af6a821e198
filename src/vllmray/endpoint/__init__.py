"""Talking to the served model, as any client would; the only import of httpx2."""
