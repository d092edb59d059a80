"""Dynamic sparsity: what a token does not need is not read, and what that costs is measured."""
