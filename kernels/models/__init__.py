"""The model that a GGUF file describes: its header, and every launch of its passes. Contains no kernels or weights."""
