"""A whole system in miniature, on which every kind of fault can be tried within a second."""
