"""The mini world: procedural scenes, traced and filmed."""
