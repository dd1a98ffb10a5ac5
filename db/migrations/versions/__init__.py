"""One file a revision: rNNNN_what.py."""
