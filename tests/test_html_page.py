"""What all pages share: nothing but a page's own script and style is allowed, and every value is text."""

from gpt2cli.html_page import visible


def test_control_characters_are_pictures_and_lines_stay_lines():
    assert visible("a\x00\x1b[2J\x7f\r\n\tb") == "a␀␛[2J␡␍\n\tb"
    assert visible(7) == 7
