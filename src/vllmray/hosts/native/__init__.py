"""The native runtime: processes of this machine in the place of containers."""
