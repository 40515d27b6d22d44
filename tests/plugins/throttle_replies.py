"""Receivers as their MX records name them, what they say, and what the shipped rules make of it."""

from __future__ import annotations

# Where mail for these goes, as their MX records say.
SERVERS = {
    "gmail.com": "gmail-smtp-in.l.google.com",
    "workspace.example": "aspmx.l.google.com",
    "yahoo.com": "mta5.am0.yahoodns.net",
    "aol.com": "mx-aol.mail.gm0.yahoodns.net",
    "hotmail.com": "hotmail-com.olc.protection.outlook.com",
    "outlook.jp": "outlook-jp.olc.protection.outlook.com",
    "company.example": "company-example.mail.protection.outlook.com",
    "dane.example": "dane-example.a-v1.mx.microsoft",
    "icloud.com": "mx01.mail.icloud.com",
    "own-domain.example": "mx02.mail.icloud.com",
    "comcast.net": "mx1h1.comcast.net",
    "gmx.de": "mx00.emig.gmx.net",
    "web.de": "mx-ha02.web.de",
    "ionos.example": "mx00.kundenserver.de",
    "docomo.ne.jp": "mfsmax.docomo.ne.jp",
    "au.com": "mx.au.com",
    "ezweb.ne.jp": "lsean.ezweb.ne.jp",
    "t1.ezweb.ne.jp": "lsean.ezweb.ne.jp",
    "uqmobile.jp": "mx.uqmobile.jp",
    "softbank.ne.jp": "mx.softbank.ne.jp",
    "i.softbank.jp": "mx.i.softbank.jp",
    "t.vodafone.ne.jp": "mx.softbank.ne.jp",
    "jp-d.ne.jp": "mx.softbank.ne.jp",
    "ymobile.ne.jp": "mx.ymobile.ne.jp",
    "disney.ne.jp": "mx.softbank.ne.jp",
    "di.pdx.ne.jp": "mx.pdx.ne.jp",
    "rakumail.jp": "mx.rakumail.jp",
    "yahoo.co.jp": "mx1.mail.yahoo.co.jp",
    "kyoto.ocn.ne.jp": "mx.ocn.ad.jp",
    "nifty.com": "mx.nifty.com",
    "aa2.so-net.ne.jp": "mx.so-net.ne.jp",
    "mxm.biglobe.ne.jp": "mx.biglobe.ne.jp",
    "elsewhere.example": "mx.elsewhere.example",
}
PROVIDERS = {
    "gmail": ["gmail.com", "workspace.example"],
    "yahoo": ["yahoo.com", "aol.com"],
    "outlook": ["hotmail.com", "outlook.jp"],
    "office365": ["company.example", "dane.example"],
    "apple": ["icloud.com", "own-domain.example"],
    "comcast": ["comcast.net"],
    "gmx": ["gmx.de", "web.de", "ionos.example"],
    "docomo": ["docomo.ne.jp"],
    "au": ["au.com", "ezweb.ne.jp", "t1.ezweb.ne.jp", "uqmobile.jp"],
    "softbank": [
        *("softbank.ne.jp", "i.softbank.jp", "t.vodafone.ne.jp", "jp-d.ne.jp"),
        *("ymobile.ne.jp", "disney.ne.jp", "di.pdx.ne.jp"),
    ],
    "rakuten_mobile": ["rakumail.jp"],
    "yahoo_japan": ["yahoo.co.jp"],
    "ocn": ["kyoto.ocn.ne.jp"],
    "nifty": ["nifty.com"],
    "so_net": ["aa2.so-net.ne.jp"],
    "biglobe": ["mxm.biglobe.ne.jp"],
}

# Real texts, with other addresses; and what they do. A dash: nothing, the schedule of retries is
# the answer.
REPLIES = [
    (
        "gmail.com",
        "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your "
        "IP address. To protect our users from spam, mail sent from your IP address has been "
        "temporarily rate limited. For more information, go to https://support.google.com/mail/"
        "?p=UnsolicitedRateLimitError to review our Bulk Email Senders Guidelines. x1-2.3 - gsmtp",
        "rate-limited: slow pause",
    ),
    (
        "workspace.example",
        "421 4.7.0 [192.0.2.1 15] Our system has detected an unusual rate of unsolicited mail "
        "originating from your IP address. To protect our users from spam, mail sent from your IP "
        "address has been temporarily rate limited.",
        "rate-limited: slow pause",
    ),
    (
        "gmail.com",
        "550 5.7.1 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail "
        "originating from your IP address. To protect our users from spam, mail sent from your IP "
        "address has been blocked.",
        "blocked: pause retry",
    ),
    (
        "gmail.com",
        "421 4.7.26 Your email has been rate limited because it is unauthenticated. Gmail requires "
        "all senders to authenticate with either SPF or DKIM.",
        "unauthenticated: -",
    ),
    (
        "gmail.com",
        "421 4.7.0 [192.0.2.1 15] Our system has detected that this message is suspicious due to "
        "the very low reputation of the sending IP address.",
        "low-reputation: slow",
    ),
    (
        "gmail.com",
        "450 4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend "
        "your message at a later time.",
        "mailbox-busy: -",
    ),
    (
        "gmail.com",
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents "
        "additional messages from being delivered.",
        "mailbox-busy: -",
    ),
    (
        "gmail.com",
        "421 4.7.0 Temporary System Problem. Try again later (10). - gsmtp",
        "busy: slow",
    ),
    ("gmail.com", "421 4.4.5 Server busy, try again later.", "busy: slow"),
    (
        "gmail.com",
        "550 5.1.1 The email account that you tried to reach does not exist. Please try "
        "double-checking the recipient's email address for typos or unnecessary spaces.",
        None,
    ),
    ("gmail.com", "452 4.2.2 The email account that you tried to reach is over quota.", None),
    (
        "yahoo.com",
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume "
        "or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
        "complaints: slow pause",
    ),
    (
        "aol.com",
        "421 4.7.0 [TSS05] Messages from 192.0.2.1 temporarily deferred due to unexpected volume "
        "or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
        "complaints: slow pause",
    ),
    (
        "yahoo.com",
        "421 4.7.0 [GL01] Message from (192.0.2.1) temporarily deferred - 4.16.50.",
        "complaints: slow pause",
    ),
    (
        "yahoo.com",
        "421 4.7.1 [TSS09] All messages from 192.0.2.1 will be permanently deferred; Retrying will "
        "NOT succeed. See https://postmaster.yahooinc.com/error-codes",
        "refused-for-long: pause",
    ),
    (
        "yahoo.com",
        "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is in "
        "Spamhaus's list; see http://postmaster.yahoo.com/550-bl23.html",
        "blocked: pause retry",
    ),
    ("yahoo.com", "450 User is receiving mail too quickly tnmpmscs", "mailbox-busy: -"),
    (
        "yahoo.com",
        "421 Max message per connection reached, closing transmission channel",
        "session-full: -",
    ),
    (
        "yahoo.com",
        "451 Resources temporarily not available - Please try again later [#4.16.1].",
        "busy: slow",
    ),
    ("yahoo.com", "554 delivery error: dd This user doesn't have a yahoo.com account", None),
    (
        "hotmail.com",
        "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP "
        "reputation. For e-mail delivery information, see https://aka.ms/postmaster (S775)",
        "rate-limited: slow pause",
    ),
    (
        "hotmail.com",
        "421 RP-001 (BAY004-MC1F1) Unfortunately, some messages from 192.0.2.1 weren't sent. "
        "Please try again. We have limits for how many messages can be sent per hour and per day.",
        "rate-limited: slow pause",
    ),
    (
        "hotmail.com",
        "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your "
        "Internet service provider since part of their network is on our block list (S3150).",
        "blocked: pause retry",
    ),
    (
        "hotmail.com",
        "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)",
        "busy: slow",
    ),
    (
        "hotmail.com",
        "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).",
        None,
    ),
    (
        "company.example",
        "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS77712344)",
        "throttled: slow pause",
    ),
    (
        "company.example",
        "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this "
        "list please visit https://sender.office.com/ and follow the directions. (AS16012609)",
        "blocked: pause retry",
    ),
    (
        "company.example",
        "421 4.3.2 The maximum number of concurrent connections per resource forest has exceeded a "
        "limit, closing transmission channel. PRX8",
        "connections: slow",
    ),
    (
        "company.example",
        "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded",
        "mailbox-busy: -",
    ),
    ("company.example", "550 5.4.1 Recipient address rejected: Access denied.", None),
    (
        "icloud.com",
        "421 4.7.1 Messages to hanako@icloud.com deferred due to excessive volume. Try again "
        "later - https://support.apple.com/en-us/HT204137",
        "mailbox-busy: -",
    ),
    ("icloud.com", "451 4.7.1 Service unavailable - try again later", "busy: slow"),
    ("icloud.com", "421 4.7.0 me.com Error: too many errors", "busy: slow"),
    (
        "icloud.com",
        "550 5.7.0 Blocked - see https://support.proofpoint.com/dnsbl-lookup.cgi?ip=192.0.2.1",
        "blocked: pause retry",
    ),
    (
        "icloud.com",
        "550 5.7.1 Mail from IP 192.0.2.1 was rejected due to listing in Spamhaus SBL. For details "
        "please see http://www.spamhaus.org/query/bl?ip=192.0.2.1",
        "blocked: pause retry",
    ),
    ("icloud.com", "550 5.7.1 [CS01] Message rejected due to local policy.", None),
    (
        "comcast.net",
        "421 resimta-po-01v.sys.comcast.net comcast Too many sessions opened",
        "connections: slow",
    ),
    ("comcast.net", "421 Try again later RL000010", "rate-limited: slow pause"),
    (
        "comcast.net",
        "554 resimta-po-12v 192.0.2.1 found on one or more DNSBLs, see BL000001",
        "blocked: pause retry",
    ),
    (
        "web.de",
        "421 web.de (mxweb113) Nemesis ESMTP Service not available Service unavailable Reject due "
        "to policy restrictions Please try again later. Too many messages have been received in a "
        "short period of time. Please try again in a few hours and reduce the sending rate.",
        "rate-limited: slow pause",
    ),
    ("gmx.de", "421 Rate limit reached. Please try again later", "rate-limited: slow pause"),
    ("gmx.de", "421 Reject due to policy violations", "policy: slow"),
    (
        "gmx.de",
        "554 gmx.net (mxgmx104) Nemesis ESMTP Service not available No SMTP service IP address is "
        "block listed. For explanation visit https://postmaster.gmx.net/en/case?c=r0201",
        "blocked: pause retry",
    ),
    ("gmx.de", "550 Requested action not taken: mailbox unavailable", None),
    ("docomo.ne.jp", "421 Service not available, closing transmission channel", "busy: slow pause"),
    ("docomo.ne.jp", "550 Unknown user hanako@docomo.ne.jp", None),
    ("docomo.ne.jp", "552 Too much mail data hanako@docomo.ne.jp", None),
    ("ezweb.ne.jp", "550 <hanako@ezweb.ne.jp>: User unknown", None),
    ("au.com", "450 4.7.1 Requested mail action not taken", None),
    ("i.softbank.jp", "550 Invalid recipient: <hanako@i.softbank.jp>", None),
    ("softbank.ne.jp", "421 4.4.5 Too busy", "busy: slow pause"),
    (
        "yahoo.co.jp",
        "451 VS1-IP Excessive unknown recipients - possible Open Relay",
        "unknown-recipients: slow pause retry",
    ),
    (
        "yahoo.co.jp",
        "553 VS2-IP Excessive unknown recipients - possible Open Relay",
        "unknown-recipients: slow pause retry",
    ),
    ("yahoo.co.jp", "451 Resources temporarily not available", "busy: slow"),
    # Common servers.
    (
        "elsewhere.example",
        "421 4.7.0 mx.example Error: too many connections from 192.0.2.1",
        "connections: slow",
    ),
    (
        "kyoto.ocn.ne.jp",
        "421 Too many concurrent SMTP connections; please try again later.",
        "connections: slow",
    ),
    (
        "elsewhere.example",
        "452 Too many concurrent connections from this client (G2)",
        "connections: slow",
    ),
    ("elsewhere.example", "421 #4.x.2 Too many messages for this session", "session-full: -"),
    ("elsewhere.example", "450 4.7.1 Error: too much mail from 192.0.2.1", "rate-limited: slow"),
    (
        "elsewhere.example",
        "451 4.7.1 Received too many messages from a new or untrusted IP (G28)",
        "rate-limited: slow",
    ),
    (
        "elsewhere.example",
        "450 4.2.0 <a@b.example>: Recipient address rejected: Greylisted, see "
        "http://postgrey.schweikert.ch/help/b.example.html",
        "greylisted: -",
    ),
    ("elsewhere.example", "452 4.5.3 Error: too many recipients", "recipients: -"),
    ("elsewhere.example", "450 4.1.1 <a@b.example>: Recipient address rejected: unverified", None),
    (
        "elsewhere.example",
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        None,
    ),
    ("elsewhere.example", "451 4.3.0 Temporary lookup failure", None),
]
