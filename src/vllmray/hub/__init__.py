"""Where a model's files are read: a folder, the hub's cache, Hugging Face, ModelScope. Weights are never downloaded.

The only importer of huggingface_hub and modelscope.
"""
