"""Operations of training as autograd functions of torch, around engine/training/kernels."""
