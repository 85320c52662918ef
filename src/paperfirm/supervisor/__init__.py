"""The supervisor: starts the firm's processes, restarts them with back-off and arbitrates who is primary."""
