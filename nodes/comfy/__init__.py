"""Everything asked of ComfyUI."""
