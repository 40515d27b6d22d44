"""What a shop says of an order: checked, and brought into one form. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

LONGEST_ORDER = 128

_VALUE = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?", re.ASCII)
_CODE = re.compile(r"[A-Z]{3}")
# ISO 4217, the currencies of countries in use.
_CURRENCIES = """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN
    BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS
    GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW
    KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD
    NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD
    SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED
    VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""


class ConversionError(ValueError):
    """What was said of an order is not valid; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """An order, or another aim that was reached.

    Attributes:
        value: how much it is worth, in digits with a point; '' if that is not known.
        currency: of the value, as ISO 4217 has it; '' without a value.
        order: what the shop calls it; '' if it has no name.
    """

    value: str = ""
    currency: str = ""
    order: str = ""

    def key(self, message_id: str, recipient: str) -> bytes:
        """What identifies it: 32 octets that tell nothing else.

        The order, whoever made it; without one, a message makes one conversion with each recipient.
        """
        name = f"order\0{self.order}" if self.order else f"message\0{message_id}\0{recipient}"
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def conversion(fields: Mapping[str, str]) -> Conversion:
    """Reads the fields `value`, `currency` and `order`; each may be missing or ''.

    Raises:
        ConversionError: one is not valid, or a value has no currency.
    """
    value, currency = fields.get("value", "").strip(), fields.get("currency", "").strip().upper()
    order = fields.get("order", "").strip()
    if value and not _VALUE.fullmatch(value):
        raise ConversionError("value must be a number such as 1200 or 12.50, not below 0")
    if currency and not (_CODE.fullmatch(currency) and currency in _CURRENCIES):
        raise ConversionError("currency must be a code of ISO 4217, such as JPY")
    if value and not currency:
        raise ConversionError("a value needs a currency, such as JPY")
    if len(order) > LONGEST_ORDER or not order.isprintable():
        raise ConversionError(f"order must be at most {LONGEST_ORDER} printable characters")
    return Conversion(_plain(value) if value else "", currency if value else "", order)


def _plain(value: str) -> str:
    # Without leading zeros; the places behind the point stay as they were said.
    return f"{Decimal(value):f}"
