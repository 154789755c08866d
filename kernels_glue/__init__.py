"""Operations with a plain torch reference, and the faster kernels that may stand in for it."""
