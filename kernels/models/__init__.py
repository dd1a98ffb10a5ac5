"""What a GGUF file says of its model: the header, and every launch of a decode step. No kernel and no weight here."""
