"""The words of tables and pages, in English and Japanese. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Language = Literal["en", "ja"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

TEXTS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "title": "Mail report",
        "campaign": "campaign",
        "since": "since",
        "variant": "variant",
        "domain": "domain",
        "day": "day",
        "link": "link",
        "variants": "Variants",
        "domains": "Destination domains",
        "days": "Days",
        "links": "Links",
        "accepted": "accepted",
        "delivered": "delivered",
        "bounced": "bounced",
        "expired": "expired",
        "suppressed": "suppressed",
        "discarded": "discarded",
        "dropped": "dropped",
        "opened": "opened",
        "clicked": "clicked",
        "converted": "converted",
        "unsubscribed": "unsubscribed",
        "complained": "complained",
        "opens": "opens",
        "clicks": "clicks",
        "click_to_open": "click-to-open",
        "total": "all",
        "none": "(none)",
        "unknown": "(unknown)",
        "others": "({count} others)",
        "empty": "There is no such mail.",
        "period": "Mail of {first} to {last} ({timezone})",
        "until_now": "and what became of it until {now}",
        "overview": "Campaigns",
        "not_shown": "Details are shown of the newest {shown} of {all} campaigns.",
        "key_figures": "Key figures",
        "funnel": "From acceptance to order",
        "funnel_text": "How many of the accepted messages reached each step",
        "people": "people",
        "share": "share",
        "of_accepted": "of accepted",
        "timeline": "How soon people opened and clicked",
        "timeline_text": "People who had opened and clicked within some time after the delivery",
        "within": "within",
        "hours": "{count} h",
        "days_long": "{count} d",
        "ever": "ever",
        "rates": "Rates of clicks by variant",
        "rates_text": "People who clicked, of those to whom mail was delivered",
        "domains_text": "Share of the accepted messages that were delivered, by domain",
        "unlikely chance": "{better} was clicked more than {other}: unlikely chance (95 %)",
        "likely chance": "{better} and {other}: the difference is likely chance",
        "too few": "{better} and {other}: too few people to tell",
        "sales": "Orders",
        "currency": "currency",
        "orders": "orders",
        "value": "sum",
        "robots": "Programs are not counted above. They {what}.",
        "robot_opened": "loaded images {count}×",
        "robot_clicked": "followed links {count}×",
        "robot_converted": "loaded pages of orders {count}×",
        "robot_unsubscribed": "unsubscribed {count}×",
        "robot_complained": "complained {count}×",
        "list": ", ",
        "note": "People are counted once for each message. Rates of delivered and bounced are of "
        "accepted, click-to-open is of opened, all others are of delivered.",
    },
    "ja": {
        "title": "メール配信レポート",
        "campaign": "キャンペーン",
        "since": "開始日",
        "variant": "パターン",
        "domain": "ドメイン",
        "day": "日付",
        "link": "リンク",
        "variants": "パターン別",
        "domains": "宛先ドメイン別",
        "days": "日別",
        "links": "リンク別",
        "accepted": "受付",
        "delivered": "配信",
        "bounced": "エラー",
        "expired": "期限切れ",
        "suppressed": "配信停止対象",
        "discarded": "破棄",
        "dropped": "削除",
        "opened": "開封",
        "clicked": "クリック",
        "converted": "コンバージョン",
        "unsubscribed": "配信解除",
        "complained": "迷惑メール報告",
        "opens": "開封回数",
        "clicks": "クリック回数",
        "click_to_open": "開封者のクリック率",
        "total": "合計",
        "none": "（なし）",
        "unknown": "（不明）",
        "others": "（その他{count}件）",
        "empty": "該当するメールはありません。",
        "period": "対象：{first}から{last}までのメール（{timezone}）",
        "until_now": "集計時点：{now}",
        "overview": "キャンペーン一覧",
        "not_shown": "全{all}件のうち、新しい{shown}件の詳細を表示しています。",
        "key_figures": "主な数値",
        "funnel": "受付から注文まで",
        "funnel_text": "受け付けたメールのうち、各段階に達した数",
        "people": "人数",
        "share": "割合",
        "of_accepted": "受付に対する割合",
        "timeline": "開封とクリックまでの時間",
        "timeline_text": "配信後の各時間までに開封またはクリックした人数（累計）",
        "within": "経過時間",
        "hours": "{count}時間",
        "days_long": "{count}日",
        "ever": "全期間",
        "rates": "パターン別のクリック率",
        "rates_text": "配信されたうち、クリックした人の割合",
        "domains_text": "受け付けたメールのうち、配信された割合（ドメイン別）",
        "unlikely chance": "{better}は{other}よりクリックが多く、偶然とは考えにくい差です（95％）",
        "likely chance": "{better}と{other}：偶然の範囲と考えられる差です",
        "too few": "{better}と{other}：人数が少なく判断できません",
        "sales": "注文",
        "currency": "通貨",
        "orders": "件数",
        "value": "合計金額",
        "robots": "プログラムによるアクセスは上の数値に含みません：{what}。",
        "robot_opened": "画像の読み込み{count}回",
        "robot_clicked": "リンクへのアクセス{count}回",
        "robot_converted": "注文ページの読み込み{count}回",
        "robot_unsubscribed": "配信解除{count}回",
        "robot_complained": "迷惑メール報告{count}回",
        "list": "、",
        "note": "人数は1通につき1人として数えます。配信とエラーの割合は受付に対するもの、"
        "開封者のクリック率は開封に対するもの、その他は配信に対するものです。",
    },
}


def visible(text: str, longest: int = 0) -> str:
    """A text that can neither steer a terminal nor break a page: each character is one that shows.

    Args:
        text: from anyone.
        longest: so many characters at most, the last one an ellipsis; 0: all.
    """
    if not text.isprintable():
        text = "".join(one if one.isprintable() else "\ufffd" for one in text)
    return f"{text[: longest - 1]}…" if longest and len(text) > longest else text


def percent(rate: float | None) -> str:
    """A rate as it is shown; '–' for none."""
    return "–" if rate is None else f"{rate:.1%}" if rate >= 0.01 or not rate else f"{rate:.2%}"
