"""A picture or clip with its depth and cameras, and fitting it to a model's size."""
