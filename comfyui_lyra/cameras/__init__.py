"""Cameras: paths of them, named moves, sets for the teacher, ComfyUI's 3D view, drawings."""
