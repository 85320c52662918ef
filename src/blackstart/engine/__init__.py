"""The impure middle: it runs trials, records them, and guarantees that everything is taken back."""
