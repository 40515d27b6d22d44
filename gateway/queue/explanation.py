"""What a delivery status means to the person who wrote the mail, in English and Japanese. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sentence:
    """The same sentence in both languages."""

    english: str
    japanese: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened to the mail, and what its sender can do now."""

    happened: Sentence
    advice: Sentence


def explain(status: str) -> Explanation:
    """Explains an enhanced status code (RFC 3463); one that is not known gets its subject's text.

    The first digit makes no difference: whether the mail was given up is told elsewhere.
    """
    detail = status.partition(".")[2]
    return _EXPLANATIONS.get(detail) or _EXPLANATIONS.get(detail.partition(".")[0], _UNKNOWN)


def duration(seconds: float) -> Sentence:
    """A span of time in words: minutes up to two hours, hours up to two days, then days."""
    minutes = max(1, round(seconds / 60))
    if minutes < 120:
        number, english, japanese = minutes, "minute", "分"
    elif minutes < 2880:
        number, english, japanese = round(minutes / 60), "hour", "時間"
    else:
        number, english, japanese = round(minutes / 1440), "day", "日"
    return Sentence(f"{number} {english}{'s' * (number != 1)}", f"{number}{japanese}")


_ASK_RECIPIENT = Sentence(
    "Please ask the recipient for help in another way, for example by telephone.",
    "電話など別の方法で、宛先の方にお問い合わせください。",
)
_ASK_ADMIN = Sentence(
    "Please show this message to the people who run your mail system.",
    "このメールを、お使いのメールシステムの管理者にお見せください。",
)
_CHECK_ADDRESS = Sentence(
    "Please check the address for mistakes, and send the message again to the right one.",
    "宛先に間違いがないかご確認のうえ、正しい宛先にもう一度お送りください。",
)
_LATER = Sentence(
    "Please send the message again later. If that does not help, contact the recipient in another"
    " way.",
    "しばらくしてから、もう一度お送りください。それでも届かない場合は、別の方法で宛先の方にご連絡"
    "ください。",
)

_UNKNOWN = Explanation(
    Sentence(
        "The recipient's mail system did not take the message.",
        "宛先のメールシステムが、メールを受け取りませんでした。",
    ),
    Sentence(
        "The reply below may tell why. If it does not help, show this message to the people who"
        " run your mail system.",
        "理由は、下の応答に書かれていることがあります。お分かりにならない場合は、このメールを、お使い"
        "のメールシステムの管理者にお見せください。",
    ),
)
_NO_MAILBOX = Explanation(
    Sentence("There is no such address.", "この宛先は存在しません。"),
    _CHECK_ADDRESS,
)
_NO_DOMAIN = Explanation(
    Sentence(
        "The part of the address after the @ does not exist, or takes no mail.",
        "宛先の @ より後の部分が存在しないか、メールを受け付けていません。",
    ),
    _CHECK_ADDRESS,
)
_DISABLED = Explanation(
    Sentence(
        "The address takes no mail at present.",
        "この宛先は現在、メールを受け取れません。",
    ),
    _ASK_RECIPIENT,
)
_FULL = Explanation(
    Sentence(
        "The recipient's mailbox is full.",
        "宛先のメールボックスがいっぱいです。",
    ),
    _LATER,
)
_TOO_LARGE = Explanation(
    Sentence(
        "The message is too large for the recipient's mail system.",
        "メールのサイズが、宛先のメールシステムの上限を超えています。",
    ),
    Sentence(
        "Please make it smaller, for example with fewer attachments, and send it again.",
        "添付ファイルを減らすなどしてサイズを小さくし、もう一度お送りください。",
    ),
)
_UNREACHABLE = Explanation(
    Sentence(
        "The recipient's mail system could not be reached, or did not answer.",
        "宛先のメールシステムに接続できないか、応答がありませんでした。",
    ),
    _LATER,
)
_TROUBLE = Explanation(
    Sentence(
        "The recipient's mail system has a problem.",
        "宛先のメールシステムに問題が起きています。",
    ),
    _LATER,
)
_LOOP = Explanation(
    Sentence(
        "The message went round in a circle between mail systems.",
        "メールが、複数のメールシステムの間で循環しています。",
    ),
    _ASK_ADMIN,
)
_CONTENT = Explanation(
    Sentence(
        "The recipient's mail system cannot read the form of the message.",
        "宛先のメールシステムが、メールの形式を処理できませんでした。",
    ),
    _ASK_ADMIN,
)
_INTERNATIONAL = Explanation(
    Sentence(
        "The recipient's mail system does not support addresses with letters such as these.",
        "宛先のメールシステムは、英数字以外の文字を含むメールアドレスに対応していません。",
    ),
    Sentence(
        "Please use another address, one of plain letters, if there is one.",
        "英数字だけの別のメールアドレスがあれば、そちらをお使いください。",
    ),
)
_REFUSED = Explanation(
    Sentence(
        "The recipient's mail system refused the message by its rules, for example against"
        " unwanted mail.",
        "宛先のメールシステムが、迷惑メール対策などの規則により、メールの受け取りを拒否しました。",
    ),
    Sentence(
        "The reply below may tell why. Please contact the recipient in another way, or show this"
        " message to the people who run your mail system.",
        "理由は、下の応答に書かれていることがあります。別の方法で宛先の方にご連絡いただくか、この"
        "メールを、お使いのメールシステムの管理者にお見せください。",
    ),
)
_SENDER = Explanation(
    Sentence(
        "The recipient's mail system did not accept the sender's address.",
        "宛先のメールシステムが、差出人のメールアドレスを受け付けませんでした。",
    ),
    _ASK_ADMIN,
)
_TOO_MANY = Explanation(
    Sentence(
        "The message has too many recipients.",
        "メールの宛先が多すぎます。",
    ),
    Sentence(
        "Please send it to fewer people at a time.",
        "宛先を減らし、何回かに分けてお送りください。",
    ),
)

# By RFC 3463's subject and detail; a subject alone stands for all its other details.
_EXPLANATIONS = {
    "1": _NO_MAILBOX,
    "1.2": _NO_DOMAIN,
    "1.7": _SENDER,
    "1.8": _SENDER,
    "1.9": _UNKNOWN,
    "1.10": _NO_DOMAIN,
    "2": _DISABLED,
    "2.2": _FULL,
    "2.3": _TOO_LARGE,
    "3": _TROUBLE,
    "3.1": _FULL,
    "3.4": _TOO_LARGE,
    "4": _UNREACHABLE,
    "4.6": _LOOP,
    "5": _UNKNOWN,
    "5.3": _TOO_MANY,
    "6": _CONTENT,
    "6.7": _INTERNATIONAL,
    "7": _REFUSED,
}
