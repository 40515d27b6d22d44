"""Tells requests of programs from those of people, by what a request says of itself. Pure.

A verdict is '' for a person, or one of these words:

`head`: asked for the headers only, as link checkers do.
`prefetch`: fetched in advance, by a browser, a mail application or Gmail's check of new mail.
`scanner`: a mail security product that looks at links and images.
`preview`: a chat or a social network that shows a card for a link.
`bot`: a crawler, a program's HTTP library, or a browser that nobody sits at.
`no-agent`: no User-Agent at all.
`proxy-apple`: Apple's Mail Privacy Protection, which loads images whether or not mail is read.
`proxy-google`, `proxy-yahoo`: an image proxy, where it does what is no person's doing.
`burst`: see `bursts`, which knows what came before.
"""

from __future__ import annotations

import re
from functools import lru_cache

# What is matched is in lower case. A word here must not be part of any browser's User-Agent:
# "bot" alone is part of CUBOT, a maker of telephones.
_SCANNERS = re.compile(
    "|".join(
        (
            "barracuda",
            "proofpoint",
            "mimecast",
            "safelinks",
            "microsoft-urlanalyzer",
            "bingpreview",
            "microsoftpreview",
            "google-safety",
            "symantec",
            "messagelabs",
            "forcepoint",
            "websense",
            "trend ?micro",
            "fortiguard",
            "fortinet",
            "sophos",
            "ironport",
            "cisco umbrella",
            "cloudmark",
            "fireeye",
            "trellix",
            "mcafee",
            "kaspersky",
            "virustotal",
            "urlscan",
            "zscaler",
            "hornetsecurity",
            "spamexperts",
            "spamhaus",
            "vade ?secure",
            "vipre",
            "avanan",
            "palo ?alto",
            "expanse",
            "netcraft",
            "phishtank",
        )
    )
)
_PREVIEWS = re.compile(
    "|".join(
        (
            "slackbot",
            "slack-imgproxy",
            "facebookexternalhit",
            "facebot",
            "meta-externalagent",
            "twitterbot",
            "linkedinbot",
            "discordbot",
            "telegrambot",
            "whatsapp/",
            "skypeuripreview",
            "line-poker",
            "linespider",
            "kakaotalk-scrap",
            "pinterestbot",
            "redditbot",
            "mastodon/",
            "embedly",
            "iframely",
            "google web preview",
            "bluesky cardyb",
        )
    )
)
_BOTS = re.compile(
    "|".join(
        (
            "(?<!cu)bot(?![a-z])",
            "crawl",
            "spider(?![a-z])",
            "slurp",
            "mediapartners-google",
            "feedfetcher",
            "googleother",
            "archiver",
            "headless",
            "phantomjs",
            "puppeteer",
            "playwright",
            "selenium",
            "electron-fetch",
            "lighthouse",
            "^curl/",
            "^wget",
            "libwww",
            "lwp::",
            "python",
            "aiohttp",
            "httpx",
            "scrapy",
            "go-http-client",
            "^java/",
            "apache-httpclient",
            "^node",
            "undici",
            "axios/",
            "node-fetch",
            "^got ",
            "guzzle",
            "^php",
            "^ruby",
            "faraday",
            "winhttp",
            "powershell",
            "postman",
            "insomnia/",
            "zgrab",
            "masscan",
            "nmap",
            "nikto",
            "nuclei",
            "uptime",
            "pingdom",
            "monitor(?:ing|/)",
            "link ?check",
            "validator",
        )
    )
)
# Gmail looks at new mail while the application is open, some minutes before anyone reads it; real
# Edge 12 ended in 2016. iOS fetches in the background as NetworkingExtension.
_PREFETCHERS = re.compile(
    r"edge/12\.246 (?:mozilla/5\.0|gmail-content-sampling)|networkingextension"
)
# Libraries that mail applications show images with. People do not click with them.
_IMAGE_LOADERS = re.compile(r"okhttp|cfnetwork/|^dalvik/")
_IMAGE_PROXIES = {"googleimageproxy": "google", "yahoomailproxy": "yahoo"}
_APPLE_PROXY = "mozilla/5.0"


def verdict(kind: str, method: str, user_agent: str, purpose: str) -> str:
    """Says what made a request: '' for a person, else one of the words above.

    Args:
        kind: what was asked for: `open` for the image in a message; anything else is a link.
        method: the HTTP method.
        user_agent: the User-Agent field.
        purpose: the fields Sec-Purpose, Purpose, X-Purpose and X-Moz, joined.
    """
    if method == "HEAD":
        return "head"
    if purpose and ("prefetch" in purpose.lower() or "preview" in purpose.lower()):
        return "prefetch"
    agent = user_agent.lower().strip()
    if not agent:
        return "no-agent"
    proxy = _proxy(agent)
    if kind == "open":
        if agent == _APPLE_PROXY:
            return "proxy-apple"
        # These load an image when its message is opened.
        if proxy:
            return ""
    elif proxy:
        return f"proxy-{proxy}"
    return _known(agent, kind)


def image_proxy(user_agent: str) -> str:
    """Names the image proxy that fetches for a person: `google`, `yahoo`, or '' for none."""
    return _proxy(user_agent.lower())


def _proxy(agent: str) -> str:
    for word, name in _IMAGE_PROXIES.items():
        if word in agent:
            return name
    return ""


@lru_cache(maxsize=4096)
def _known(agent: str, kind: str) -> str:
    if _PREFETCHERS.search(agent):
        return "prefetch"
    if _SCANNERS.search(agent):
        return "scanner"
    if _PREVIEWS.search(agent):
        return "preview"
    if _BOTS.search(agent):
        return "bot"
    if kind != "open" and (agent == _APPLE_PROXY or _IMAGE_LOADERS.search(agent)):
        return "bot"
    return ""
