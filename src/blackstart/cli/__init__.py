"""The command line: options, exit statuses, and nothing that decides anything."""
