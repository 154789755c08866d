"""The Cosmos video tokenizer: pixels to raw latents and back."""
