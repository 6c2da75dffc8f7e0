"""A concept page as the HTML that QTextBrowser shows: tables for call-outs, since it knows no CSS boxes."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat, takewhile
from urllib.parse import quote

from PySide6.QtGui import QColor, QFont, QFontDatabase, QFontInfo, QFontMetricsF, QGuiApplication

from llmlab.core.errors import LabError
from llmlab.core.source_code import find_source
from llmlab_gui.pages.formulas import drawing_of
from llmlab_gui.pages.page import Block, Page, anchor_of, markdown
from llmlab_gui.widgets.theme import current_theme, mix


@dataclass(frozen=True)
class PageColors:
    """CSS colours of a page, and the family of its code."""

    text: str
    quiet: str
    accent: str
    question: str
    run: str
    code_background: str
    question_background: str
    run_background: str
    keyword: str
    string: str
    number: str
    mono: str

    @property
    def code(self) -> dict[str, str]:
        """Colours of Python's parts."""
        return {
            "keyword": self.keyword,
            "string": self.string,
            "comment": self.quiet,
            "number": self.number,
            "name": self.accent,
        }


def page_colors() -> PageColors:
    """The page's colours, from the window's theme."""
    theme = current_theme()
    return PageColors(
        text=QColor(theme.text).name(),
        quiet=QColor(theme.quiet).name(),
        accent=QColor(theme.accent).name(),
        question=QColor(theme.warning).name(),
        run=QColor(theme.good).name(),
        code_background=mix(theme.surface, theme.text, 0.06).name(),
        question_background=mix(theme.surface, theme.warning, 0.10).name(),
        run_background=mix(theme.surface, theme.good, 0.10).name(),
        keyword=QColor(theme.accent).name(),
        string=QColor(theme.good).name(),
        number=QColor(theme.warning).name(),
        mono=QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont).family(),
    )


FORMULA = "formula:"  # the picture of the formula whose source follows, quoted as in an address
# Of a formula's source beside its picture: not to be seen, but heard, found and copied.
UNSEEN = "font-size:1px; color:transparent;"
_TERM = re.compile(r"<p><strong>(.*?)</strong>")
_FORMULA = re.compile(r'<pre><code class="language-math">(.*?)</code></pre>', re.DOTALL)
_FENCE = re.compile(r"<pre><code[^>]*>(.*?)</code></pre>", re.DOTALL)
JOINER = "\u2060"  # no line ends here: kept out of what is copied
_PER_CENT = re.compile(r"(?<=\d) (?=%)")
_INLINE = re.compile(rf"<(pre|table)>.*?</\1>|<code>[^<]*</code>|{_PER_CENT.pattern}", re.DOTALL)
_HYPHEN = re.compile(r"-(?=[\w.])")

_TABLE = re.compile(r"<table>\n<thead>.*?</table>", re.DOTALL)
_CELL = re.compile(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", re.DOTALL)
_BREAKS = re.compile(r"[^\S\xa0]+|(?<=-)(?=[a-z])")  # where a line may end: lora-rank-r4, but not before a %
_TAG = re.compile(r"<[^>]*>")
_FONT_SIZE = re.compile(r"<table[^>]*font-size:(\d+)px")
_BETWEEN, _BETWEEN_NARROW = 12, 4  # pixels between columns
_BOX = 20  # pixels that the box of code takes from its width
_LEAST_CODE, _LEAST_WORDS = 9, 8  # pixels of letters below which a line is broken, and a word of a table
_LEAST_TURNED = 10  # pixels of letters in a table that is turned in pieces
_WIDE = 40  # characters of a table's longest cells, which a narrow page cannot show without breaking lines
_LETTER = 8  # pixels of a letter, about
_ROUNDED = 2  # pixels by which Qt may make a column narrower than its share
_NARROW_COLUMNS = 5  # of a table, beside each other on a narrow page; with more, numbers would be cut in two
_NARROW = 528  # pixels of the text's width, below which a page is narrow


def page_html(page: Page, colors: PageColors, *, room: int = 0) -> str:
    """The whole page. Code that cannot be found is said in its place, and the page goes on.

    room: pixels of the text's width; 0: as much as it takes. The columns of wide tables share it by their longest
    words. Where it is little, tables with many columns and few rows are turned, so that each row becomes a column, and
    what would break a word or a line of code has smaller letters. A table too wide for these is turned in pieces.
    """
    narrow = room if room < _NARROW else 0
    between = _BETWEEN_NARROW if narrow else _BETWEEN
    body = "".join(_block(block, colors, narrow) for block in page.blocks)
    if narrow:  # with so little between columns, numbers at the right would touch what begins at the left beside them
        body = body.replace(' style="text-align:right"', "")
    if room:
        body = _TABLE.sub(lambda table: _fitted(table[0], room, colors.mono), body)
    return f"<html><head><style>{_style(colors, between)}</style></head><body>{body}</body></html>"


@lru_cache(maxsize=1024)  # about the blocks of all pages: the same page is shown again in another width or theme
def _rendered(text: str) -> str:
    return markdown().render(text)


def _block(block: Block, colors: PageColors, narrow: int) -> str:
    if block.kind == "code":
        return _code(block.text, colors, narrow)
    content = _TERM.sub(lambda term: f'<p><a name="{anchor_of(term[1])}"></a>{term[0][3:]}', _rendered(block.text))
    content = content.replace("<p><img", '<p style="line-height:100%"><img')  # not 140 % of a figure's height
    content = _INLINE.sub(_unbroken, content)
    if block.kind == "question":
        return _callout("Predict", content, colors.question, colors.question_background)
    if block.kind == "run":
        return _callout("Try it", content, colors.run, colors.run_background)
    content = _FORMULA.sub(_formula, content)
    # Qt draws a quoted line like any paragraph: a box of its own makes it stand out.
    content = content.replace(
        "<blockquote>",
        f'<table width="100%" cellspacing="0" style="margin:6px 0"><tr>'
        f'<td width="3" bgcolor="{colors.quiet}" style="padding:0"></td><td class="quoted" style="padding:4px 10px">',
    ).replace("</blockquote>", "</td></tr></table>")
    return _FENCE.sub(lambda fence: _fence(fence[1], colors, narrow), content)


def _fitting(width: Callable[[QFont], float], room: int, least: int, most: int = 0) -> QFont:
    """The page's own font, or its largest smaller letters with which something fits into so many pixels; 0: any.

    most: pixels of the largest letters; 0: the page's own.
    """
    font = QFont(QGuiApplication.font())
    size = QFontInfo(font).pixelSize()
    if 0 < most < size:
        size = most
        font.setPixelSize(size)
    while size > least and 0 < room < width(font):
        size -= 1  # step by step: advances of small letters are rounded
        font.setPixelSize(size)
    return font


def _size(font: QFont) -> str:
    """Its style; "" for the page's own size."""
    size = QFontInfo(font).pixelSize()
    return f"font-size:{size}px;" if size < QFontInfo(QGuiApplication.font()).pixelSize() else ""


def _code_style(text: str, colors: PageColors, narrow: int) -> str:
    """Of lines in a box. One in ten may be broken, so that a single long one does not make all of them small."""
    lines = sorted(text.split("\n"), key=len)
    longest = lines[-1 - len(lines) // 10]

    def width(font: QFont) -> float:
        font.setFamily(colors.mono)
        return QFontMetricsF(font).horizontalAdvance(longest)

    return f"font-family:{colors.mono};{_size(_fitting(width, narrow - _BOX, _LEAST_CODE))}"


def _fitted(table: str, room: int, mono: str) -> str:
    """room: pixels. mono: the family of code."""
    rows = _rows(table)
    if room < _NARROW and len(rows[0]) > max(_NARROW_COLUMNS, len(rows)):
        table = _turned(rows)
    shared, fits = _shared(table, room, mono)
    if fits or room >= _NARROW:
        return shared
    pieces: list[list[list[str]]] = []
    head, *left = rows

    def turned(piece: list[list[str]], most: int = 0) -> tuple[str, bool]:
        return _shared(_turned([head, *piece]), room, mono, least=_LEAST_TURNED, most=most)

    def first(rows: list[list[str]]) -> list[list[str]]:
        fitting = takewhile(lambda count: turned(rows[:count])[1], range(1, len(rows) + 1))
        return rows[: max(1, len(list(fitting)))]

    while left:
        pieces.append(first(left))
        left = left[len(pieces[-1]) :]
    sizes = [int(size) for piece in pieces for size in _FONT_SIZE.findall(turned(piece)[0])]
    return "".join(turned(piece, min(sizes, default=0))[0] for piece in pieces)  # letters of one size in all


def _rows(table: str) -> list[list[str]]:
    return [_CELL.findall(row) for row in table.split("</tr>")[:-1]]


def _turned(rows: list[list[str]]) -> str:
    """A table in which each row is a column."""
    head, *lines = zip(*rows, strict=True)
    turned = ["".join(f"<th>{cell}</th>" for cell in head)]
    turned += ["".join([f"<th>{first}</th>", *(f"<td>{cell}</td>" for cell in rest)]) for first, *rest in lines]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in turned)}</table>"


def _shared(table: str, room: int, mono: str, *, least: int = _LEAST_WORDS, most: int = 0) -> tuple[str, bool]:
    """Qt would make the columns equally wide, and cut words in one that another has room for.

    room: pixels. mono: the family of code. least, most: pixels of letters, as `_fitting` has them. Returns the table,
    and whether all of its words fit.
    """
    columns = [[html.unescape(_TAG.sub("", cell)) for cell in each] for each in zip(*_rows(table), strict=True)]
    letters, narrow = sum(max(map(len, column)) for column in columns), room < _NARROW
    between = _BETWEEN_NARROW if narrow else _BETWEEN
    turned = "<thead>" not in table  # by `_turned`: the first cell of each row is bold, too
    short = letters < _WIDE if narrow else len(columns) <= _NARROW_COLUMNS or letters * _LETTER < room
    if short and not turned:
        return table, True

    def widths(font: QFont) -> list[float]:
        """Pixels that the longest word of each column takes."""
        bold, fixed = QFont(font), QFont(font)
        bold.setBold(True)
        fixed.setFamily(mono if "<code" in table else font.family())
        heads, cells, code = QFontMetricsF(bold), QFontMetricsF(font), QFontMetricsF(fixed)
        below = [heads if turned else cells, *repeat(cells, len(columns) - 1)]
        words = (
            [
                max(metrics.horizontalAdvance(word), code.horizontalAdvance(word))
                for metrics, parts in ((heads, head.split()), (each, _BREAKS.split(" ".join(rest))))
                for word in parts
            ]
            for (head, *rest), each in zip(columns, below, strict=True)
        )
        return [max(each, default=0.0) + between for each in words]

    inside = room - _ROUNDED * len(columns)
    font = _fitting(lambda font: sum(widths(font)), inside, least, most)
    needs = widths(font)
    shares = iter(100 * need / sum(needs) for need in needs)
    shared = re.sub(r"<th\b", lambda _: f'<th width="{next(shares):.1f}%"', table, count=len(needs))
    style = f"margin-top:6px;{_size(font)}"
    return shared.replace("<table", f'<table cellspacing="0" style="{style}"', 1), sum(needs) <= inside


def _unbroken(part: re.Match[str]) -> str:
    """In a command between words no line ends at a hyphen, as Qt's do after `--`; in a table they have to.

    And no line ends between a number and its %.
    """
    if part[0] == " ":
        return "&nbsp;"
    if part[1] == "table":
        return _PER_CENT.sub("&nbsp;", part[0])
    return part[0] if part[1] else _HYPHEN.sub(f"-{JOINER}", part[0])


def _formula(fence: re.Match[str]) -> str:
    """Its picture, quoted; the fence as it is where there is none."""
    source = html.unescape(fence[1]).strip()
    if not drawing_of(source):
        return fence[0]
    return (
        f'<blockquote><p style="line-height:100%"><img src="{FORMULA}{quote(source, safe="")}">'
        f'<span style="{UNSEEN}">{html.escape(source)}</span></p></blockquote>'
    )


def _fence(text: str, colors: PageColors, narrow: int) -> str:
    """Lines to copy, in a box: with a background of its own, each line would cut off the underscores above it."""
    return (
        f'<table width="100%" cellspacing="0" style="margin:8px 0"><tr>'
        f'<td bgcolor="{colors.code_background}" style="padding:8px 10px">'
        f'<pre style="{_code_style(html.unescape(text.rstrip()), colors, narrow)}margin:0;white-space:pre-wrap">'
        f"{text.rstrip()}</pre></td></tr></table>"
    )


def _callout(label: str, content: str, edge: str, background: str) -> str:
    return (
        f'<table width="100%" cellspacing="0" style="margin:8px 0"><tr>'
        f'<td width="4" bgcolor="{edge}" style="padding:0"></td>'
        f'<td bgcolor="{background}" style="padding:8px 12px"><b style="color:{edge}">{label}</b>{content}</td>'
        "</tr></table>"
    )


def _code(reference: str, colors: PageColors, narrow: int) -> str:
    try:
        source = find_source(reference)
    except LabError as error:
        return _callout("Missing", f"<p>{html.escape(str(error))}</p>", colors.quiet, colors.code_background)
    width = len(str(source.last_line))
    numbered = []
    for number, line in enumerate(colored_html(source.code, colors.code).split("\n"), source.first_line):
        numbered.append(f'<span style="color:{colors.quiet}">{number:>{width}}</span>  {line}')
    style = _code_style("\n".join(f"{'0' * width}  {line}" for line in source.code.split("\n")), colors, narrow)
    head = html.escape(source.path + (f" · {source.symbol}" if source.symbol else ""))
    lines = "\n".join(numbered)
    return (
        f'<table width="100%" cellspacing="0" style="margin:8px 0"><tr>'
        f'<td bgcolor="{colors.code_background}" style="padding:8px 10px"><span style="color:{colors.quiet}">{head}, '
        f"lines {source.first_line} to {source.last_line}</span>"
        f'<pre style="{style}margin:4px 0 0 0;white-space:pre-wrap">{lines}</pre></td></tr></table>'
    )


def _style(colors: PageColors, between: int) -> str:
    """Sizes follow the window's font; a line is set a little wider than Qt's default. between: pixels, of columns."""
    return f"""
        body {{ color: {colors.text}; }}
        p, li {{ line-height: 140%; margin-top: 6px; margin-bottom: 6px; }}
        h1 {{ font-size: xx-large; font-weight: 600; margin-bottom: 4px; }}
        h2 {{ font-size: x-large; font-weight: 600; margin-top: 18px; margin-bottom: 2px; }}
        h3 {{ font-size: large; font-weight: 600; margin-top: 14px; margin-bottom: 2px; }}
        a {{ color: {colors.accent}; text-decoration: none; }}
        code {{ font-family: {colors.mono}; background-color: {colors.code_background}; }}
        td.quoted p {{ font-family: {colors.mono}; margin: 0; }}
        th {{ text-align: left; padding: 3px {between}px 3px 0; color: {colors.quiet}; }}
        td {{ padding: 3px {between}px 3px 0; }}
    """


def colored_html(code: str, colors: Mapping[str, str]) -> str:
    """Python as HTML spans. colors: CSS colours of `keyword`, `string`, `comment`, `number` and `name`."""
    parts = _colored_parts(code)
    return "".join(f'<span style="color:{colors[kind]}">{text}</span>' if kind else text for kind, text in parts)


@lru_cache(maxsize=256)  # a page in sight is made anew at each width
def _colored_parts(code: str) -> tuple[tuple[str | None, str], ...]:
    """Python in parts: the name of its colour, and the text as HTML."""
    from pygments import lex  # type: ignore[import-untyped]
    from pygments.lexers import PythonLexer  # type: ignore[import-untyped]
    from pygments.token import Comment, Keyword, Name, Number, Operator, String  # type: ignore[import-untyped]

    kinds = (
        (Comment, "comment"),
        (String, "string"),
        (Number, "number"),
        (Keyword, "keyword"),
        (Operator.Word, "keyword"),
        (Name.Function, "name"),
        (Name.Class, "name"),
        (Name.Decorator, "name"),
    )
    return tuple(
        (next((name for parent, name in kinds if token in parent), None), html.escape(text))
        for token, text in lex(code, PythonLexer(stripnl=False, ensurenl=False))
    )
