"""A study's page escapes text of data lists, rows and paths."""

from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from liverseg.study.document import Heading, Items, Paragraph, Picture, Table, to_html

HOSTILE = """</title></script><script>alert(1)</script> <img src=x onerror="alert(2)'> & </style> " id="x"""


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.shown = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.shown += data


@pytest.fixture
def blocks(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "a.png")

    def blocks(text):
        return [
            Heading(text, 1),
            Heading(text, 2),
            Heading(text, 3),
            Paragraph(f"{text} **{text}** `{text}`"),
            Items([text]),
            Table([text, "b"], [[f"{text}\n{text}", text]]),
            Picture(tmp_path / "a.png", text, text),
        ]

    return blocks


def test_text_stays_text(blocks):
    plain, hostile = Page(to_html(blocks("plainest"))), Page(to_html(blocks(HOSTILE)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(attributes) for _, attributes in hostile.tags] == [
        sorted(attributes) for _, attributes in plain.tags
    ]
    assert hostile.shown.count(HOSTILE) == plain.shown.count("plainest") == 14
    (picture,) = [attributes for tag, attributes in hostile.tags if tag == "img"]
    assert picture["alt"] == HOSTILE
