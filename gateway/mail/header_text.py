"""Spans of a header field's text, replaced so that all other octets stay. Pure.

The field's body is taken apart into pieces. Those that a span touches, and words that come to touch
what is new, are written anew; the others keep their octets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from gateway.mail import address_list, charset, jis
from gateway.mail.charset import Edit
from gateway.mail.encoded_word import ADDRESS_FIELDS, UTF_8, Stretch, decode_value, stretches
from gateway.mail.folding import ENCODED_LINE, ENCODED_WORD, LINE, LONGEST_LINE, lay_out
from gateway.mail.header_piece import Body, Kind, Piece
from gateway.mail.header_words import Writing

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BLANK_LINE = re.compile(rb"\r\n[ \t]*+(?:\r\n|\Z)")
_VARIANTS = str.maketrans(jis.VARIANTS)


def replace(start: bytes, body: bytes, spans: Iterable[Edit]) -> bytes:
    """The body of a field with spans of its text, `(start, end, new)`, replaced.

    `start` is what stands before the body: the name and the colon. The body comes back as the same
    object where nothing changes.

    Raises:
        ValueError: spans overlap or lie outside of the text, new text has a control character, or
            a span touches what cannot be replaced: an address, or a mark between mailboxes.
    """
    unfolded = Body(body)
    found = stretches(unfolded.octets)
    text = "".join([stretch.text for stretch in found])
    edits = _checked(text, spans)
    if not edits:
        return body
    address = start[:-1].rstrip(b" \t").decode("latin-1").lower() in ADDRESS_FIELDS
    new = None
    if not address:
        plain = len(found) == 1 and found[0].form is None and found[0].charset == "us-ascii"
        splice = _spliced_ascii if plain else _spliced_word
        new = splice(start, unfolded, found, edits)
    if new is None:
        new = _rewritten(start, unfolded, found, edits, address)[len(start) :]
    return new


def _checked(text: str, spans: Iterable[Edit]) -> list[Edit]:
    """Spans of the stripped text as edits of all of it: in order, those that touch as one."""
    stripped = text.strip()
    lead = text.index(stripped) if stripped else len(text)
    edits: list[Edit] = []
    done = 0
    for start, end, new in sorted(spans, key=itemgetter(0, 1)):
        if not done <= start <= end <= len(stripped):
            raise ValueError(f"the span {start}:{end} overlaps another or is not in the value")
        if _CONTROL.search(new):
            raise ValueError("new text contains a control character")
        new.encode()  # no surrogates
        done = end
        if edits and edits[-1][1] == start + lead:
            edits[-1] = (edits[-1][0], end + lead, edits[-1][2] + new)
        else:
            edits.append((start + lead, end + lead, new))
    return [edit for edit in edits if text[edit[0] : edit[1]] != edit[2]]


def _edited(text: str, edits: list[Edit], position: int = 0) -> str:
    """A text that begins at this position of another, with edits of that."""
    parts: list[str] = []
    done = 0
    for start, end, new in edits:
        parts += text[done : start - position], new
        done = end - position
    parts.append(text[done:])
    return "".join(parts)


def _spliced_ascii(
    start: bytes, body: Body, found: list[Stretch], edits: list[Edit]
) -> bytes | None:
    """A body of plain ASCII, the new text in it as it is; None where that cannot be."""
    parts: list[bytes] = []
    done = 0
    for first, last, new in edits:
        parts += body.raw(done, first), new.encode()
        done = last
    parts.append(body.raw(done, len(body.octets)))
    octets = b"".join(parts)
    if not body.octets[done:].strip():
        octets = octets.rstrip(b" \t")
    if not octets.isascii() or b"=?" in octets or octets.isspace():
        return None
    return octets if _fits(start + octets, LINE) else None


def _spliced_word(
    start: bytes, body: Body, found: list[Stretch], edits: list[Edit]
) -> bytes | None:
    """A body in which one encoded word is another; None where more has to change than that."""
    position = 0
    for stretch in found:
        end = position + len(stretch.text)
        if edits[0][0] < end:
            break
        position = end
    else:
        return None
    form = stretch.form
    if form is None or edits[0][1] == position or edits[-1][0] >= end or edits[-1][1] > end:
        return None
    text = _edited(stretch.text, edits, position)
    try:
        for _, _, new in edits:
            charset.encode(new, form.charset, exact=True)
        octets = charset.encode(text, form.charset)
    except UnicodeEncodeError:
        form = form.in_utf_8()
        octets = text.encode(errors="replace")
    word = form.opening + form.encoded(octets) + b"?="
    if not text or len(word) > ENCODED_WORD:
        return None
    whole = body.raw(0, stretch.start) + word + body.raw(stretch.end, len(body.octets))
    wanted = "".join([text if one is stretch else one.text for one in found]).strip()
    return whole if _fits(start + whole, ENCODED_LINE) and _reads_as(whole, wanted) else None


def _fits(field: bytes, longest: int) -> bool:
    """Whether its lines are no longer than that and none is blank."""
    if b"\r" not in field:
        return len(field) <= longest
    return not _BLANK_LINE.search(field) and _longest(field) <= longest


def _rewritten(
    start: bytes, body: Body, found: list[Stretch], edits: list[Edit], address: bool
) -> bytes:
    """The field with these edits of its text.

    Words are written as plainly as they can be. Where that reads as something else, because of
    what stands beside them, all that is new is encoded; and then the whole text.
    """
    for cautious, joint in (False, False), (True, False), (True, True):
        if joint:
            found = stretches(body.octets, joint=True)
        came = address_list.pieces(body, found) if address else body.pieces(found, edits)
        writing = Writing.of(found, address=address, cautious=cautious)
        pieces = writing.resolved(_applied(came, edits, writing))
        if not came and pieces:
            pieces.insert(0, Piece(Kind.SPACE, " "))
        field = lay_out(start, pieces, writing.plain_charset)
        new = field[len(start) :]
        wanted = "".join([piece.text for piece in pieces]).strip()
        if (
            _reads_as(new, wanted)
            and _well_formed(field, start + body.folded)
            and (not address or _fixed(came) == _fixed(_read_addresses(new)))
        ):
            return field
    if address:
        raise ValueError("these spans cannot be replaced; change the field")
    text = _edited("".join([stretch.text for stretch in found]), edits).strip()
    word = Piece(Kind.ENCODED, text.encode(errors="replace").decode(), None, UTF_8)
    return lay_out(start, [Piece(Kind.SPACE, " "), word], "us-ascii")


def _read_addresses(octets: bytes) -> list[Piece]:
    body = Body(octets)
    return address_list.pieces(body, stretches(body.octets))


def _fixed(pieces: list[Piece]) -> str:
    """What of a field with mailboxes must be the same afterwards."""
    return "".join([piece.text for piece in pieces if piece.kind is Kind.FIXED]).strip()


def _reads_as(body: bytes, wanted: str) -> bool:
    text = decode_value(body)
    return text == wanted or text.translate(_VARIANTS) == wanted.translate(_VARIANTS)


def _well_formed(field: bytes, old: bytes) -> bool:
    """Whether no line is blank or too long, if none was before."""
    if _BLANK_LINE.search(field) and not _BLANK_LINE.search(old):
        return False
    return len(field) <= LONGEST_LINE or _longest(field) <= max(LONGEST_LINE, _longest(old))


def _longest(field: bytes) -> int:
    return max(map(len, field.split(b"\r\n")))


def _applied(pieces: Sequence[Piece], edits: list[Edit], writing: Writing) -> Iterator[Piece]:
    """The pieces with edits of their joined text; what an edit touches has no octets any more."""
    index = position = depth = 0
    before: Piece | None = None
    for piece in pieces:
        end = position + len(piece.text)
        kind = Kind.COMMENT if depth else Kind.PLAIN
        if index < len(edits) and edits[index][:2] == (position, position):
            if writing.address:
                _check_place(before, piece)
            yield from writing.new(edits[index][2], kind)
            index += 1
        if index < len(edits) and edits[index][0] < end:
            going_on = edits[index][0] < position
            parts: list[tuple[str, bool]] = [("", False)] if going_on else []
            done = position
            while index < len(edits) and edits[index][0] < end:
                start, stop, new = edits[index]
                if start >= position:
                    parts += (piece.text[done - position : start - position], False), (new, True)
                done = min(stop, end)
                if stop > end:
                    break
                index += 1
            parts.append((piece.text[done - position :], False))
            yield from writing.touched(piece, parts, kind)
        else:
            yield piece
        if writing.address and piece.kind is Kind.FIXED:
            depth = max(0, depth + (piece.text == "(") - (piece.text == ")"))
        position, before = end, piece
    if index < len(edits):
        if writing.address:
            _check_place(before, None)
        yield from writing.new(edits[index][2], Kind.PLAIN)


def _check_place(before: Piece | None, after: Piece | None) -> None:
    """Raises ValueError between pieces where no name or comment may be written."""
    if not any(piece is not None and piece.kind is not Kind.FIXED for piece in (before, after)):
        raise ValueError("here begins or ends an address; change the field")
