"""What stands before a model's own names, from wherever it was saved."""

PREFIXES = (
    (r"^((module|model|_orig_mod|net|network|diffusion_model)\.)+", ""),  # wrappers, in any order
    (r"(?<=\.)(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.", ""),  # of compiled or wrapped parts
)
