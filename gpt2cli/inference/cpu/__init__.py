import os

# to colour messages that nobody sees, Numba would have colorama rewrite what goes to stdout
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
