"""Processes of this machine where others have containers: what stands behind native_host.py."""
