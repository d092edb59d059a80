"""The Numba code of the decoder: SIMD values, quantised activations, attention, the layer loop."""
