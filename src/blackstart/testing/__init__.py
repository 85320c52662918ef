"""Public kit for those who extend Blackstart: sample results for reporters."""
