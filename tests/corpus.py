"""Texts on which tokenizers differ if they can: white space, Unicode, code, digits, contractions, special tokens."""

import random

HARD = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n \n",
    " \t \r\n\f\v ",
    "a  b   c    d",
    "trailing   ",
    "   leading",
    "tabs\t\tand\n\n\nlines\r\n\r\nend\n",
    "non\u00a0breaking\u00a0\u00a0spaces\u2003and\u2009thin\u3000wide\u200bzero\ufeffmark\u2028line\u0085next",
    "I'll you've don't he's they'd I'm we're can't 'tis o'clock 's'S'LL rock'n'roll ''''",
    "1234567890 3.14159 1,000,000 0x1F ½ ²³ ٣٤٥ १२३ ⅷ 𝟛 x2y3",
    "naïve café résumé Ångström coöperate e\u0301 ﬁ ß ẞ İı ŉ",
    "Привет, мир! Καλημέρα κόσμε. שלום עולם مرحبا بالعالم",
    "こんにちは世界。日本語のテキスト、漢字かな交じり文。 안녕하세요 你好，世界！ สวัสดีชาวโลก नमस्ते दुनिया",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈👍🏽 e🇩🇪🇫🇷 ☃️ \U0001f9ff\U0010ffff\ue000",
    "def f(x):\n    if x >= 0 and x != 3:  # comment\n\treturn {'a': [x**2, -x], \"b\": lambda y: y % 7}\n\n\nf(1)",
    '#include <stdio.h>\nint main(void) { printf("%d\\n", 1<<3 | ~0x7f); return 0; }',
    "SELECT * FROM t WHERE a='b' AND c<>1;-- x\n<div class=\"a b\">&nbsp;</div>\n$$\\frac{a}{b}$$ https://x.org/?q=1&r=%20#z",
    "!!!???...,,,;;;:::---___===+++***///\\\\\\|||&&&%%%$$$###@@@^^^~~~```\"\"\"'''",
    "(a)[b]{c}<d> «e» “f” ‘g’ —h– …i… •j §k ¶l †m ©® ™ € £ ¥",
    "MixedCASE camelCase snake_case SCREAMING_SNAKE kebab-case dot.case",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "control \x01\x02\x1b[31mred\x1b[0m\x7f end\u0000zero",
    "SolidGoldMagikarp petertodd rawdownload externalToEVA",
    "<|endoftext|",
    "< |endoftext|> <|endofText|> <|im_start|>",
    "### Instruction:\nWhat is it?\n\n### Response:\n",
]
"""Without the special token, which programs that take text alone may or may not look for."""
SPECIAL = ["<|endoftext|>", "a<|endoftext|>b", "one. <|endoftext|> two\n<|endoftext|><|endoftext|>"]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of random characters from all planes of Unicode, dense in white space and ASCII."""
    choose = random.Random(seed)
    pools = [
        " \t\n\r\u00a0\u2003",
        "abcxyzABC",
        "0123456789²½",
        "'.,!?-_(){}<>\"\\",
        "äßéñçøπЖשع日本語한글ก🙂👍🏽",
        [chr(c) for c in range(0x80, 0x3000)],
        [chr(c) for c in range(0x10000, 0x1F9FF)],
    ]
    return ["".join(choose.choice(choose.choice(pools)) for _ in range(choose.randint(1, 60))) for _ in range(count)]
