"""`sparsechat kb` in parts: what its actions take, how they fill, look, measure and remove."""
