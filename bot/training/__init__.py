"""`sparsechat train` in parts: what its actions share. The actions are in actions/."""
