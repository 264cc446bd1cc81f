"""The HTML of a model card. Cards are uploaded, so nothing in one may run or load anything in a browser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# The parser's time grows with the square of a hostile card's length. A card of this length fills many screens.
MAX_CHARACTERS = 2**14
_KEPT = 64
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
# PEFT's template of a card is full of them. The bound keeps many openings without an end cheap.
_COMMENT = re.compile(r"<!--.{0,1000}?-->", re.DOTALL)
# The page has one h1, and a panel's title is an h2.
_DEEPER = 2
_TAGS = {
    *("p", "br", "hr", "blockquote", "pre", "code", "em", "strong", "s", "a", "ul", "ol", "li"),
    *("h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}


def card_html(markdown: str) -> str:
    """Return a card as HTML of a few tags, without its front matter, comments, images and raw HTML.

    Links are absolute and open outside the console. Of a card over MAX_CHARACTERS only the beginning is shown.
    """
    text = _FRONT_MATTER.sub("", markdown.replace("\r\n", "\n"), count=1)
    html = _html(text[:MAX_CHARACTERS])
    rest = len(text) - MAX_CHARACTERS
    return html if rest <= 0 else f"{html}<p><em>{rest:,} more characters are in the bundle's README.md.</em></p>"


# Anybody who may read can ask for the same card again and again.
@lru_cache(_KEPT)
def _html(shown: str) -> str:
    # Only a server whose cards somebody reads pays for the two libraries.
    import nh3

    parser = _parser()
    tokens = parser.parse(_COMMENT.sub("", shown))
    for i, token in enumerate(tokens):
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + _DEEPER)}"
        if token.type == "th_open" and not tokens[i + 1].content:
            # A header without text heads nothing, and a screen reader would announce it.
            token.tag = tokens[i + 2].tag = "td"
    return nh3.clean(
        parser.renderer.render(tokens, parser.options, {}),
        tags=_TAGS,
        attributes={"a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _alternative)
    return parser


def _alternative(_renderer: Any, tokens: Sequence[Any], index: int, _options: Any, _env: Any) -> str:
    """Return an image's text, because the image itself would be loaded from another host."""
    return escape(tokens[index].content)
