"""The lengths of prompts above which slow parts are left out, unless they are asked for."""

LIMITS = {"saliency": 256, "ablation": 256, "patching": 128}
"""Tokens for each part whose cost is many passes over the prompt."""
PATTERN_TOKENS = 256
"""The most tokens for which attention patterns are kept: their number grows with the square of the length."""
