"""The commands, one module each. A module's name is that of its command, with `_` for `-`."""

PANELS = {
    "Write": {
        "generate": "Continue a text.",
        "chat": "Chat with a model.",
        "serve": "Serve a model over HTTP, as OpenAI's API does.",
    },
    "Train": {
        "finetune": "Train a model on instructions, conversations or text.",
        "prepare-alpaca": "Tokenize instructions or conversations for many runs.",
    },
    "Measure": {
        "evaluate": "Compare how well models predict and answer.",
        "bench": "Measure the speed of a model.",
    },
    "Look inside": {
        "explain": "Show what happens inside a model as it reads a prompt.",
        "info": "Show a model's parts, size, memory and origin.",
    },
    "Files": {
        "quantize": "Write a model with 8 or 4 bits per weight.",
        "export": "Write a model for other programs.",
        "download-weights": "Download a model, or list and delete those on disk.",
        "runs": "List training runs, or delete them.",
    },
}
"""The commands by purpose, as on the help page, which is shown without importing their modules.

A command's text is the first sentence of its help page.
"""
