"""The tests on every Python that vllmray supports: `scripts/test --pythons`. No tests of their own are here."""
