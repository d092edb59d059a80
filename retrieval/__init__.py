"""Finds: passages from Wikipedia or from the user's own documents."""
