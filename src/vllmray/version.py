"""The version: that of Git's tags, as the build wrote it down (pyproject.toml, tool.hatch.build.hooks.vcs)."""

try:
    # importlib.metadata has it too, and takes longer than `vllmray --version` may.
    from vllmray._version import __version__ as __version__  # noqa: PLC0414  # an export, for mypy
except ImportError:  # a source tree on the PYTHONPATH
    __version__ = "0.0.0+unknown"
