"""What `sparsechat train ACTION` can do: one file per action, found by its name like a verb.

A module has a docstring (its first line is shown by `sparsechat train --help`),
`add_arguments(parser)` and `run(args) -> int`, the exit code. from-kb is from_kb.py.
"""
