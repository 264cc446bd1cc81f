"""A card in the console is its Markdown as HTML that runs nothing and loads nothing."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from rootstock.service.console.card import MAX_CHARACTERS, card_html

FRONT_MATTER = "---\nlicense: mit\nmodel-index:\n- name: x\n---\n\n"


class Elements(HTMLParser):
    """The tags of a fragment with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_card_s_headings_tables_and_lists_are_shown_below_the_page_s_headings() -> None:
    card = Elements(
        card_html(f"{FRONT_MATTER}# mood\n\n## Labels\n\n- `sad`\n\n| a | b |\n| - | -: |\n| 1 | 2 |\n")
    )
    assert [tag for tag, _ in card.tags if tag in ("h3", "h4", "li", "code", "table", "td")] == [
        *("h3", "h4", "li", "code", "table", "td", "td")
    ]
    assert "license" not in card.text
    assert all(not attributes for _, attributes in card.tags)


def test_a_comment_is_not_shown() -> None:
    card = Elements(card_html("# mood\n\n<!-- Provide a quick\nsummary. -->\n\nGood. <!-- no end"))
    assert card.text.split() == ["mood", "Good.", "<!--", "no", "end"]


def test_an_empty_header_of_a_table_is_a_cell() -> None:
    card = Elements(card_html("|  | F1 |\n| --- | --- |\n| mood | 0.9 |\n"))
    assert [tag for tag, _ in card.tags if tag in ("th", "td")] == ["td", "th", "td", "td"]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![picture](https://elsewhere.example/pixel.png)",
        "[click](javascript:alert(1))",
        "[click](data:text/html,<script>alert(1)</script>)",
        "<javascript:alert(1)>",
        "<a href='https://elsewhere.example' onclick='alert(1)'>x</a>",
        "<iframe src='https://elsewhere.example'></iframe>",
        "<style>body{background:url(https://elsewhere.example)}</style>",
        "<svg><script>alert(1)</script></svg>",
        '[x](https://a.example "\\" onmouseover=alert(1)")',
        "[up](../../v1/adapters) [here](#/upload)",
        "<form action='/v1/adapters'><input></form>",
        "[ref]\n\n[ref]: JaVaScRiPt:alert(1)",
    ],
)
def test_nothing_in_a_card_runs_loads_or_leads_into_the_console(text: str) -> None:
    card = Elements(card_html(f"{FRONT_MATTER}{text}\n"))
    for tag, attributes in card.tags:
        assert tag in {"p", "a", "pre", "code"}, tag
        assert set(attributes) <= {"href", "rel", "target", "title"}, attributes
        assert str(attributes.get("href", "https:")).startswith("https:"), attributes


def test_an_image_is_shown_as_its_text() -> None:
    assert (
        Elements(card_html("![a <chart> of F1](https://elsewhere.example/x.png)")).text.strip()
        == "a <chart> of F1"
    )


def test_a_link_opens_outside_the_console_and_tells_the_other_site_nothing() -> None:
    (link,) = [
        attributes for tag, attributes in Elements(card_html("[paper](https://a.example/p)")).tags if tag == "a"
    ]
    assert link == {"href": "https://a.example/p", "rel": "noopener noreferrer", "target": "_blank"}


def test_of_a_long_card_the_beginning_is_shown() -> None:
    text = Elements(card_html("word " * MAX_CHARACTERS)).text
    assert len(text) < MAX_CHARACTERS + 100
    assert "65,536 more characters are in the bundle's README.md." in text


def test_a_card_that_is_asked_for_again_is_not_parsed_again() -> None:
    hostile = "![" * (MAX_CHARACTERS // 2)
    # Two answers of the parser would be equal and not the same.
    assert card_html(hostile) is card_html(f"---\nlicense: mit\n---\n{hostile}")
