"""Small servers of every kind, and the tour over them."""
