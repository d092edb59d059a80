"""A model that is taught to leave most of its feed-forwards out, by its own dense self."""
