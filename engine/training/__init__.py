"""Learns: rows of text become batches, batches become gradients, gradients better weights.

The only folder that imports torch, and no module outside of it imports one of these when it starts.
"""
