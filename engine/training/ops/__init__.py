"""Operations of training in Numba, as autograd functions of torch."""
