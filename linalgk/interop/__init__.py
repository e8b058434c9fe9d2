"""Faces of other frameworks: derivatives and tracing, imported when their arrays ask for them."""
