"""Files of weights in every form that people have, read without running anything."""
