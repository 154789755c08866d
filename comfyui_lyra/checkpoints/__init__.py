"""Files of weights in every form that they go about in, read without running anything that they hold."""
