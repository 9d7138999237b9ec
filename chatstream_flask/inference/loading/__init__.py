"""Loading of models and tokenizers: Hugging Face folders and hub ids, GGUF files, adapters."""
