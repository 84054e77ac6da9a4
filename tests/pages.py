"""Pages as a browser reads them, for tests of what is on them."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The tables, headings and pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.images, self.texts, self.attributes = [], [], [], [], []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True
        elif tag == "img":
            self.images.append(dict(attributes))

    def handle_endtag(self, tag):
        self.in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        self.texts.append(data)
        if self.in_cell:
            self.tables[-1][-1][-1] += data.strip()

    @property
    def sources(self):
        """What it loads or links to."""
        return [value for _, name, value in self.attributes if name in ("src", "href")]

    def table(self, corner):
        """The table with that text in its first cell."""
        return next(table for table in self.tables if table[0][0] == corner)
