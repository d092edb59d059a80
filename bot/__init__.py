"""The assistant at the terminal: shell, commands, conversations, command line."""
