# ruff: noqa: E501 - one case of a table is one line
from __future__ import annotations

import html
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.hooks import Client, Message
from plugins.tracking import attribute, links, parameters
from plugins.tracking.links import Link
from plugins.tracking.parameters import Parameters
from tests.plugins.tracking_mail import Site, hrefs, make_message, tags

A = "https://a.example/"


def values(text: str) -> list[str]:
    found = links.scan(text).links
    for link in found:
        assert attribute.decode(text[link.start : link.end]) == link.value
    return [link.value for link in found]


def link(text: str) -> Link:
    (found,) = links.scan(text).links
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), {"opens": False})


@pytest.fixture(scope="module")
def links_only(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory, unsubscribe={"placeholder": None})


def make_site(tmp_path_factory: pytest.TempPathFactory, **config: object) -> Site:
    return Site(tmp_path_factory.mktemp("site"), {"opens": False, **config})


# Where the links are.


@pytest.mark.parametrize(
    "tag",
    [
        '<a href="X">',
        "<a href='X'>",
        "<a href=X>",
        "<A HREF=X>",
        "<a href=X >",
        '<a href = "X">',
        '<a\nhref\n=\n"X"\n>',
        '<a\thref="X">',
        '<a/href="X">',
        '<a class="b"href="X">',
        "<a title='>' href='X'>",
        '<a title="<b" href="X">',
        '<a title=it\'s href="X">',
        '<a disabled href="X" target=_blank>',
        '<a = href="X">',
        '<a data-href="Y" href="X">',
        '<a xhref="Y" hrefx="Z" href="X">',
        '<a href="X" href="Y">',
        '<area shape="rect" href="X" />',
        '<AREA HREF="X">',
        '<v:roundrect xmlns:v="urn:schemas-microsoft-com:vml" href="X" style="height:40px">',
        '<V:RECT HREF="X">',
        '<a href=" \n X\t">',
        '<p>1 < 2 </ p> <> <3 <a href="X">',
        '<?xml version="1.0"?><!DOCTYPE html><a href="X">',
        '<!><a href="X">',
        '</><a href="X">',
        '</p class="><a href=\'X\'>"><a href="X">'.replace("<a href='X'>", ""),
        '<!-- <a href="Y"> --><a href="X">',
        '<!--><a href="X">-->',
        '<!---><a href="X">-->',
        '<!-- --!><a href="X">-->',
        '<!--[if mso]><a href="X"><![endif]-->',
        '<!--[IF mso]><b><![endif]--><a href="X">',
        '<!--[if gte mso 9]><v:roundrect href="X"><![endif]-->',
        '<!--[if (mso)|(IE)]><a href="X"></a><![endif]-->',
        '<!--[if !mso]><!--><a href="X"><!--<![endif]-->',
        '<!--[if !mso]>--><a href="X"><!--<![endif]-->',
        '<![if !mso]><a href="X"><![endif]>',
        '<!--[if mso]><style>a{}<![endif]--><a href="X">',
        '<!--[if mso]><a href="<![endif]--><a href="X">',
        '<!--[if mso]><!-- <a href="Y"> --><a href="X">',
        '<style>a:after{content:"<a href=Y>"}</style><a href="X">',
        '<STYLE>a</STYLE ><a href="X">',
        '<style></stylex><a href="Y"></style><a href="X">',
        '<script>"<a href=Y>"</script><a href="X">',
        '<textarea><a href="Y"></textarea><a href="X">',
        '<title><a href="Y"></title><a href="X">',
        '<noscript><a href="X"></noscript>',
        '<iframe><a href="Y"></iframe><a href="X">',
        '<xmp><a href="Y"></xmp><a href="X">',
        '<svg><a href="X"></a></svg>',
        '<img alt="<a href=Y>" src="Y"><a href="X">',
        "<img alt='<a href=Y>' src=Y><a href=X>",
        '<link href="Y"><base href="Y"><form action="Y"><img src="Y"><a href="X">',
        '<abbr href="Y"><a:b href="Y"><b href="Y"><a href="X">',
        '日本語　<a href="X">日本語</a>',
    ],
)
def test_a_link_is_found(tag: str) -> None:
    text = tag.replace("X", A).replace("Y", "https://b.example/")
    assert values(text) == [A]
    assert text[link(text).start : link(text).end] == A


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<a>",
        "<a name=x>",
        "<a href>",
        "<a href/>",
        "<a hrefs=X>",
        "<ahref=X>",
        "&lt;a href=X&gt;",
        "< a href=X>",
        '<a href="X',
        "<a href='X\">",
        "<a href=X",
        "<a href",
        "<a",
        "<",
        "</a href=X>",
        '<p title="<a href=X>">',
        "<p title='<a href=X>'>",
        "<p title=<a href=X>",
        '<p title="><a href=X>',
        "<!-- <a href=X>",
        "<!-- <a href=X> -- >",
        "<!--[if mso]><!-- <a href=X> -->",
        "<style><a href=X>",
        "<style/><a href=X>",
        "<title><a href=X></titles>",
        "<plaintext><a href=X>",
        "<? <a href=X>",
        "<!x <a href=X>",
        "</ <a href=X>",
    ],
)
def test_what_is_no_link_is_not_found(text: str) -> None:
    assert [value for value in values(text.replace("X", A)) if value] == []


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("?a=1&amp;b=2", "?a=1&b=2"),
        ("?a=1&#38;b=2", "?a=1&b=2"),
        ("?a=1&#x26;b=2", "?a=1&b=2"),
        ("?a=1&#38b=2", "?a=1&b=2"),
        ("?a=1&ampb=2", "?a=1&ampb=2"),
        ("?a=1&amp=2", "?a=1&amp=2"),
        ("?a=1&amp;amp;b=2", "?a=1&amp;b=2"),
        ("?a=1&b=2", "?a=1&b=2"),
        ("?a=1&copy=2&reg=3", "?a=1&copy=2&reg=3"),
        ("?a=1&copy;=2", "?a=1©=2"),
        ("?a=1&copyright=2", "?a=1&copyright=2"),
        ("?a=1&section=2&lang=ja&para", "?a=1&section=2&lang=ja¶"),
        ("?a=&quot;b&quot;&apos;", '?a="b"\''),
        ("?a=&eacute;&Eacute;", "?a=éÉ"),
        ("?a=&lang", "?a=&lang"),
        ("?a=&nosuch;&amp;x", "?a=&nosuch;&x"),
        ("?a=&#128;&#0;&#xD800;", "?a=€\ufffd\ufffd"),
        ("?a&", "?a&"),
        ("?a&#;&#x;&;", "?a&#;&#x;&;"),
    ],
)
def test_character_references_are_read_as_browsers_do(raw: str, value: str) -> None:
    assert attribute.decode(raw) == value
    assert values(f'<a href="{raw.replace(chr(34), "")}">')[0] == value


@given(st.text(st.sampled_from("&abpm;#38x=ct \"'<>`é")))
def test_what_is_written_is_read_as_the_same(value: str) -> None:
    written = attribute.encode(value)
    assert attribute.decode(written) == html.unescape(written) == value
    assert not set(written) & set("\"'<>`")
    if value and " " not in value:
        for tag in (f'<a href="{written}">', f"<a href='{written}'>", f"<a href={written}>"):
            assert values(tag) == [value]


def test_names_and_opting_out() -> None:
    def found(attributes: str) -> tuple[str, bool]:
        one = link(f'<a href="{A}" {attributes}>')
        return one.name, one.tracked

    assert found("") == ("", True)
    assert found('data-link-name="hero"') == ("hero", True)
    assert found("DATA-LINK-NAME='a&amp;b'") == ("a&b", True)
    assert found('data-link-name=" big \n red\x07button "') == ("big redbutton", True)
    assert found(f'data-link-name="{"x" * 100}"') == ("x" * 64, True)
    assert found('data-link-name="a" data-link-name="b"') == ("a", True)
    assert found("data-track=off") == ("", False)
    assert found('Data-Track=" OFF "') == ("", False)
    assert found("data-track='false'") == ("", False)
    assert found("data-track") == ("", True)
    assert found('data-track="on" data-link-name="x"') == ("x", True)
    assert found('title="data-track=off"') == ("", True)


@pytest.mark.parametrize(
    ("text", "end", "complete"),
    [
        ("<p>x</p></body></html>", "</body></html>", True),
        ("<p>x</p></BODY\n></html>", "</BODY\n></html>", True),
        ("<p>x</p></body> </body><!-- </body> -->", "</body><!-- </body> -->", True),
        (
            "x</body><!--[if mso]></body><![endif]-->",
            "</body><!--[if mso]></body><![endif]-->",
            True,
        ),
        ("x</body><style></body></style>", "</body><style></body></style>", True),
        ('x</body><p title="</body>">', '</body><p title="</body>">', True),
        ("x", None, True),
        ("x</bodyx>", None, True),
        ("x<!-- </body>", None, False),
        ("x<style>", None, False),
        ("x<p title='", None, False),
        ("x</body", None, False),
        ("x<!y", None, False),
        ("x<? y", None, False),
        ("x</ y", None, False),
        ("x</body><!--", "</body><!--", False),
        ("<!--[if mso]><style><![endif]-->x", None, True),
    ],
)
def test_the_end_of_the_body(text: str, end: str | None, complete: bool) -> None:
    found = links.scan(text)
    assert (None if found.body_end is None else text[found.body_end :]) == end
    assert found.complete is complete


# Laws.

FRAGMENTS = (
    '<a href="', "<a href='", "<a href=", '<A HREF = "', "<a ", "<area ", '<v:rect href="',
    '"', '"', "'", ">", ">", "<", " ", "\n", "=", "/", "<!--", "-->", "<!", "<?", "</", "<b",
    "<b>", '<p a="', "<style>", "</style>", "<title>", "</title >", "href=", "</a>", "</body>",
    "<!--[if mso]>", "<![endif]-->", "https://a.example/", "https://a.example/?a=1&amp;b=2",
    '<a href="https://a.example/">', "<a href='http://b.example/?a&amp;b' class=x>", "<a href=http://c.example>",
    '<v:rect href="https://a.example/?q=日">', "http://日本.jp/é", "mailto:x@example.com", "%%unsubscribe_url%%", "{{x}}", "&copy", "é", "\t",
)  # fmt: skip
MARKUP = st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join)
ELEMENT = st.sampled_from(
    [
        '<a href="U">text</a>', "<a href='U' class=b>text</a>", "<a href=U>text</a>",
        '<a class="x" HREF="U"><img src="U" alt="a > b"></a>', '<area href="U">', '<img src="U">',
        "<p>text &amp; more", "<!-- a comment <a href='https://c.example/'> -->", "<br/>", "日本",
        "<style>p{}</style>", '<p title="<a href=x>">', "</p>",
    ]
)  # fmt: skip
URLS = st.sampled_from(
    [
        "https://a.example/?a=1&amp;b=2", "https://a.example/#x", "http://b.example", "mailto:a@b.example",
        "#top", "/relative", "https://a.example/%E3%81%82", "HTTPS://A.example/", "tel:+81-3", "",
    ]
)  # fmt: skip
DOCUMENT = st.lists(st.tuples(ELEMENT, URLS), max_size=15).map(
    lambda found: "".join(element.replace("U", url) for element, url in found)
)


def outside(text: str, spans: list[tuple[int, int]]) -> list[str]:
    places = [0, *(place for span in spans for place in span), len(text)]
    return [text[start:end] for start, end in list(pairwise(places))[::2]]


@given(MARKUP)
@example('<a href="https://a.example/"')
def test_only_the_characters_of_urls_change(links_only: Site, text: str) -> None:
    site, text = links_only, text.rstrip() + "\n"
    after = site.rewritten(text)
    new = links.scan(after)
    found = links.scan(text)

    assert len(new.links) == len(found.links)
    changed = [
        (old, made)
        for old, made in zip(found.links, new.links, strict=True)
        if site.is_tracked(made.value)
    ]
    old_spans = [(old.start, old.end) for old, _ in changed]
    new_spans = [(made.start, made.end) for _, made in changed]
    assert outside(text, old_spans) == outside(after, new_spans)
    for old, made in changed:
        assert site.token(made.value).url.startswith(("http://", "https://"))
        assert text[old.start : old.end].strip() == text[old.start : old.end]
    assert site.rewritten(after) == after


@given(DOCUMENT)
def test_pythons_parser_sees_the_same_document_with_tracked_links(site: Site, text: str) -> None:
    after = site.rewritten(text)

    before_tags, after_tags = tags(text), tags(after)
    assert len(before_tags) == len(after_tags)
    for (tag, before), (same, now) in zip(before_tags, after_tags, strict=True):
        assert tag == same
        url = before.get("href", "")
        if tag in ("a", "area") and url.lower().startswith("http"):
            assert site.token(now["href"]).url == url
            assert {**now, "href": url} == before
        else:
            assert now == before


HOSTILE = [
    "<", "<a ", '<a href="', "<b ", "<b><", '<b a="', "<b a a a ", "<!--", "<!--[if mso]>", "<style>",
    "<style></style", "</body ", "<!", "<?", "<a href=", "= = ", "<v:", "<a href=x ", "<!--[if ", "--",
    '<a data-track href="', "<title></title>", "&amp", "<a b='c' ", "https://a.example/", "%%", "{{",
    "<!--[if mso]>-->", '<a href="https://a.example/">', "<a " + "b " * 999 + ">", "((", "))",
    "<!--[if mso]><a " + "b " * 480 + "-->", "<!--[if mso]><b " + 'b="x" ' * 480 + "-->",
    "<!--[if mso]><a " + "b " * 2500 + ">-->", "<!--[if mso]><a href=x " + "b " * 480 + "-->",
    "<!--[if mso]><style " + "b " * 480 + "-->", "<!--[if mso]></body " + "b " * 480 + "-->",
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_input_takes_linear_time(piece: str) -> None:
    """Each takes some 50 ms; with quadratic time it would take many minutes."""
    for start in ("", '<a href="https://a.example/?'):
        links.scan(start + piece * (300_000 // len(piece)))


# What becomes of them.


@pytest.mark.parametrize(
    "url",
    [
        "mailto:a@example.com", "tel:+81312345678", "sms:+81312345678", "cid:a@b", "data:text/html,x",
        "javascript:alert(1)", "#top", "/path", "path", "?a=b", "//a.example/", "", " ", "https:",
        "https://", "https:///", "https:a.example", "ftp://a.example/", "https://a b.example/",
        "https://user@a.example/", "https://user:secret@a.example/", "https://a.example:x/", "https://a.example:65536/", "https://a.example:99999/",
        "https://a.example:99999x/", "https://.a.example/", "https://a..example/", "https://%61.example/",
        "https://[::1/", "https://[::g]/", "https://a.example\\b", "https://日本\u200b\u202e.jp/", "https://a.example/\x01x",
        "https://a.example/{{name}}", "https://a.example/{name}", "https://a.example/?x=%%name%%",
        "https://a.example/*|NAME|*", "https://a.example/[[name]]", "https://a.example/{% if %}",
        "https://a.example/?x=%7B%7Bname%7D%7D", "https://a.example/<%= x %>", "{{ url }}", "%%url%%",
        "*|URL|*", "[[url]]", "https://t.example.com/c/AAAA", "HTTPS://T.EXAMPLE.COM/u/x",
        "https://t.example.com/", "https://a.example/" + "a" * 2000,
    ],
)  # fmt: skip
def test_these_are_left_alone(site: Site, url: str) -> None:
    text = f'<p><a href="{html.escape(url)}">x</a></p>\n'
    assert site.rewritten(text) == text


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("https://a.example", "https://a.example"),
        ("http://a.example:8080/", "http://a.example:8080/"),
        ("https://a.example:/", "https://a.example/"),
        ("https://a.example./x", "https://a.example./x"),
        ("https://A.Example/X", "https://A.Example/X"),
        ("https://[::1]:8080/x", "https://[::1]:8080/x"),
        ("https://[0:0::1]/x", "https://[::1]/x"),
        ("https://192.0.2.1/x", "https://192.0.2.1/x"),
        ("https://a_b.example/", "https://a_b.example/"),
        ("https://日本.jp/", "https://xn--wgv71a.jp/"),
        ("https://www。例え。jp/", "https://www.xn--r8jz45g.jp/"),
        ("https://a.example/日本", "https://a.example/%E6%97%A5%E6%9C%AC"),
        ("https://a.example/?q=日本", "https://a.example/?q=%E6%97%A5%E6%9C%AC"),
        ("https://a.example/#日", "https://a.example/#%E6%97%A5"),
        ("https://a.example/%E3%81%82?q=%zz", "https://a.example/%E3%81%82?q=%zz"),
        ("https://a.example/a b", "https://a.example/a%20b"),
        ("https://a.example/?a[]=1|2^3", "https://a.example/?a[]=1|2^3"),
        ("https://a.example/?a=&quot;&lt;b&gt;`", "https://a.example/?a=%22%3Cb%3E%60"),
        ("https://a.example/?to=https://b.example/@x", "https://a.example/?to=https://b.example/@x"),
        ("https://a.example/?a=1&b=2", "https://a.example/?a=1&b=2"),
        ("https://a.example/?a=1&amp;copy=2", "https://a.example/?a=1&copy=2"),
        ("https://a.exa\nmple/\tx", "https://a.example/x"),
        ("\x01https://a.example/\x1f", "https://a.example/"),
        ("https://a.example:65535/", "https://a.example:65535/"),
        ("https://a.example/*%7Cx", "https://a.example/*%7Cx"),
    ],
)  # fmt: skip
def test_a_click_leads_where_the_link_led(site: Site, written: str, target: str) -> None:
    text = f'<p class="b"><a class=x href="{written}" target="_blank">{written}</a></p>\n'
    after = site.rewritten(text)

    (url,) = hrefs(after)
    assert site.token(url).url == target
    assert after.replace(url, written, 1) == text


def test_white_space_around_a_url_stays(site: Site) -> None:
    after = site.rewritten('<a href="\n  https://a.example/ ">x</a>\n')
    assert re.fullmatch(r'<a href="\n  https://t\.example\.com/c/[\w-]+ ">x</a>\n', after)


@pytest.mark.parametrize(
    "text",
    [
        '<base href="https://a.example/"><a href="b">x</a>\n',
        '<img src="https://a.example/i.png"><form action="https://a.example/f">\n',
        '<a href="https://a.example/" data-track="off">x</a>\n',
    ],
)
def test_other_urls_are_left_alone(site: Site, text: str) -> None:
    assert site.rewritten(text) == text


def test_a_query_in_japanese_is_left_alone_where_programs_do_not_agree_on_it(site: Site) -> None:
    text = '<a href="https://a.example/?q=日本">x</a><a href="https://a.example/日本">y</a>\n'
    header = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=iso-2022-jp\r\n\r\n"
    message = make_message(header + text.replace("\n", "\r\n").encode("iso-2022-jp"))
    site.plugin.message(message)

    first, second = hrefs(message.text_parts("text/html")[0].text)
    assert first == "https://a.example/?q=日本"
    assert site.token(second).url == "https://a.example/%E6%97%A5%E6%9C%AC"


def test_one_url_has_one_token_for_each_name(site: Site) -> None:
    one, two, three = hrefs(
        site.rewritten(
            '<a href="https://a.example/">x</a><a href="https://a.example/">y</a>'
            '<a href="https://a.example/" data-link-name="footer">z</a>'
        )
    )
    assert one == two != three
    assert (site.token(one).link, site.token(three).link) == ("", "footer")


def test_hosts_that_are_tracked(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = "".join(f'<a href="https://{host}/">' for host in ("a.jp", "www.a.jp", "b.a.jp", "c.jp"))

    def tracked(**config: object) -> list[bool]:
        site = make_site(tmp_path_factory, **config)
        return [site.is_tracked(url) for url in hrefs(site.rewritten(text))]

    assert tracked() == [True] * 4
    assert tracked(only_hosts=["a.jp", "*.a.jp"]) == [True, True, True, False]
    assert tracked(exclude_hosts=["*.A.jp"]) == [True, False, False, True]
    assert tracked(only_hosts=["*a.jp"], exclude_hosts=["b.*"]) == [True, True, False, False]
    assert tracked(clicks=False) == [False] * 4


def test_an_address_is_a_host_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = make_site(tmp_path_factory, exclude_hosts=["::1", "192.0.2.*"])
    text = '<a href="http://[::1]:80/"><a href="http://192.0.2.1/"><a href="http://[::2]/">'
    assert [site.is_tracked(url) for url in hrefs(site.rewritten(text))] == [False, False, True]


def test_hosts_are_compared_in_one_form(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = make_site(tmp_path_factory, exclude_hosts=["日本.jp", "*.例え.jp"])
    text = (
        '<a href="https://日本.jp/"><a href="https://XN--WGV71A.JP/">'
        '<a href="https://x.xn--r8jz45g.jp/"><a href="https://other.jp/">'
    )
    assert [site.is_tracked(url) for url in hrefs(site.rewritten(text))] == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://www.a.jp/sale", True),
        ("http://a.jp", True),
        ("www.a.jp", True),
        ("A.JP/x?y=1", True),
        ("<b>www</b>.a.jp", True),
        (" www.a.jp:443/&amp; ", True),
        ("a.jp now", False),
        ("Buy now", False),
        ("https://b.jp/", False),
        ("", False),
    ],
)
def test_a_link_that_shows_its_url(
    tmp_path_factory: pytest.TempPathFactory, site: Site, text: str, kept: bool
) -> None:
    html_text = f'<a href="https://www.a.jp/x">{text}</a>'
    keeping = make_site(tmp_path_factory, keep_visible_urls=True)
    (url,) = hrefs(keeping.rewritten(html_text))
    assert keeping.is_tracked(url) is not kept
    assert site.is_tracked(hrefs(site.rewritten(html_text))[0])
    (open_link,) = hrefs(keeping.rewritten(f'<a href="https://www.a.jp/x">{text}'))
    assert keeping.is_tracked(open_link)


# Parameters.


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.jp", "https://a.jp?x=1&y=a%20b"),
        ("https://a.jp/", "https://a.jp/?x=1&y=a%20b"),
        ("https://a.jp/?", "https://a.jp/?x=1&y=a%20b"),
        ("https://a.jp/?z=1", "https://a.jp/?z=1&x=1&y=a%20b"),
        ("https://a.jp/?z=1&", "https://a.jp/?z=1&x=1&y=a%20b"),
        ("https://a.jp/#f?z", "https://a.jp/?x=1&y=a%20b#f?z"),
        ("https://a.jp/?z#f", "https://a.jp/?z&x=1&y=a%20b#f"),
        ("https://a.jp/?x=2", "https://a.jp/?x=2&y=a%20b"),
        ("https://a.jp/?x", "https://a.jp/?x&y=a%20b"),
        ("https://a.jp/?%78=2&y=", "https://a.jp/?%78=2&y="),
        ("https://a.jp/?a=1;x=2", "https://a.jp/?a=1;x=2&y=a%20b"),
        ("https://a.jp/?X=2", "https://a.jp/?X=2&x=1&y=a%20b"),
    ],
)
def test_parameters_are_added_where_they_are_missing(url: str, expected: str) -> None:
    pairs = Parameters({"x": "1", "y": "a b"}).fill({})
    assert parameters.add(url, pairs) == expected
    assert parameters.add(expected, pairs) == expected


def test_parameters_have_what_is_known_of_the_message(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    site = make_site(
        tmp_path_factory,
        parameters={
            "utm_source": "{stream}", "utm_campaign": "{campaign}-{variant}", "v": "{variant}",
            "c": "x{link}", "l": "{link}", "日": "本",
        },
        parameter_hosts=["a.jp"],
    )  # fmt: skip
    text = (
        '<a href="https://a.jp/?v=9#f" data-link-name="big &amp; red">x</a>'
        '<a href="https://a.jp/">y</a><a href="https://b.jp/">z</a>'
    )
    message = Message("ID", "a@example.com", Client("127.0.0.1"), "bulk")
    message.content = b"Content-Type: text/html; charset=utf-8\r\n\r\n" + text.encode() + b"\r\n"
    message.add_recipient("b@example.net")
    message.notes.update(campaign="春 sale", variant="b")
    site.plugin.message(message)

    urls = [site.token(url).url for url in hrefs(message.text_parts("text/html")[0].text)]
    source, campaign = "utm_source=bulk", "utm_campaign=%E6%98%A5%20sale-b"
    assert urls == [
        f"https://a.jp/?v=9&{source}&{campaign}&c=xbig%20%26%20red&l=big%20%26%20red&%E6%97%A5=%E6%9C%AC#f",
        f"https://a.jp/?{source}&{campaign}&v=b&c=x&%E6%97%A5=%E6%9C%AC",
        "https://b.jp/",
    ]


@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_parameters_are_added_without_tracking_too(
    tmp_path_factory: pytest.TempPathFactory, quote: str
) -> None:
    site = make_site(tmp_path_factory, clicks=False, parameters={"x": "1", "y": "2"})
    rest = " class=b>x</a><a href=https://a.jp/?x&y>\n"
    after = site.rewritten(f"<a href={quote}https://a.jp/?it&#39;s&amp;b=2{quote}{rest}")

    assert hrefs(after) == ["https://a.jp/?it's&b=2&x=1&y=2", "https://a.jp/?x&y"]
    assert after.endswith(rest)
    assert after.startswith(f"<a href={quote}https://a.jp/")


# Real messages.


def test_links_of_real_messages_lead_where_they_led(
    mail_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = make_site(tmp_path_factory, unsubscribe={"headers": False})
    seen = tracked = 0
    for path in sorted(mail_corpus.rglob("*")):
        if not path.is_file() or path.name == "README.md":
            continue
        content = re.sub(rb"\r\n|\r|\n", b"\r\n", path.read_bytes()).replace(b"\0", b"")
        before, after = make_message(content), make_message(content)
        site.plugin.message(after)
        pairs = zip(before.text_parts(), after.text_parts(), strict=True)
        for old, new in pairs:
            if old.content_type != "text/html" or not old.editable:
                assert old.text == new.text
                continue
            seen += 1
            tracked += check_document(site, old.text, new.text)
        if after.content == before.content:
            continue
        # All that changed is in parts whose text changed.
        assert any(
            one.text != other.text
            for one, other in zip(before.text_parts(), after.text_parts(), strict=True)
        )
    assert seen > 50, seen
    assert tracked > 10, tracked


def check_document(site: Site, before: str, after: str) -> int:
    found, made = links.scan(before), links.scan(after)
    spans: list[tuple[int, int]] = []
    new_spans: list[tuple[int, int]] = []
    for old, new in zip(found.links, made.links, strict=True):
        if site.is_tracked(new.value):
            spans.append((old.start, old.end))
            new_spans.append((new.start, new.end))
            assert site.token(new.value).url == browsers_url(old.value)
        else:
            assert new.value == old.value
    assert outside(before, spans) == outside(after, new_spans)
    return len(spans)


def browsers_url(value: str) -> str:
    """The URL of a link, for those that are in the corpus."""
    value = re.sub(r"[\t\n\r]", "", value.strip())
    scheme, _, rest = value.partition("://")

    def encoded(match: re.Match[str]) -> str:
        return "".join([f"%{octet:02X}" for octet in match[0].encode()])

    return f"{scheme}://" + re.sub(r"[^!#-;=?-_a-z{|}~]", encoded, rest)


def test_what_is_long_is_rewritten_and_not_remembered(tmp_path: Path) -> None:
    site = Site(tmp_path)
    host = f"{'a' * 60}." * 5 + "example"
    path = "x" * 2000

    assert site.hrefs(f'<a href="https://{host}/">x</a>') == [f"-> https://{host}/"]
    assert site.plugin._rewriter._policy.cache_info().currsize == 0
    site.hrefs(f'<a href="https://a.example/{path}">x</a>')
    assert site.plugin._rewriter._known_target.cache_info().currsize == 1
