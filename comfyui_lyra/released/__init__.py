"""Released files: what there is, fetching, telling what a file is, converting."""
