"""DMARC: the policy of a domain, and whether two domains belong together.

The organizational domain is found by a walk up the tree of the DNS (RFC 9989 4.10).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.resolver import NoSuchDomainError, ResolutionError, Resolver

LONGEST_WALK = 8
"""Names that are asked about, at most."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a domain wants receivers to do.

    Attributes:
        domain: whose record it is; '' if there is none.
        tags: what the record says.
        organization: the organizational domain of the name that was asked about.
    """

    domain: str
    organization: str
    tags: dict[str, str] = field(default_factory=dict)

    def action(self, author: str) -> str:
        """What becomes of mail that fails: `none`, `quarantine` or `reject`."""
        wanted = self.tags.get("p", "none")
        return self.tags.get("sp", wanted) if author != self.domain else wanted

    def aligned(self, kind: str, author: str, other: str, organization: str) -> bool:
        """Whether a domain that was proved stands for the author's.

        Args:
            kind: `adkim` or `aspf`.
            author: the domain of the From field.
            other: the domain that was proved.
            organization: the organizational domain of `other`.
        """
        if self.tags.get(kind, "r") == "s":
            return author == other
        return self.organization == organization


async def policy_of(resolver: Resolver, domain: str) -> Policy:
    """The policy that holds for a domain, and its organizational domain.

    Raises:
        ResolutionError: the DNS cannot tell now.
    """
    found = [
        (name, tags)
        for name in walk(domain)
        if (tags := await _record(resolver, f"_dmarc.{name}")) is not None
    ]
    if not found:
        return Policy("", domain)
    organization = found[-1][0]
    for name, tags in found:
        if tags.get("psd") == "n":
            organization = name
            break
        if tags.get("psd") == "y" and name != domain:
            below = domain.split(".")
            organization = ".".join(below[-len(name.split(".")) - 1 :])
            break
    own = next((one for one in found if one[0] == domain), None)
    name, tags = own or next((one for one in found if one[0] == organization), found[-1])
    return Policy(name, organization, tags)


def walk(domain: str) -> list[str]:
    """The names from a domain up; of a long one, only the last labels after the first."""
    labels = domain.split(".")
    names = [domain]
    rest = labels[1:]
    if len(labels) > LONGEST_WALK:
        rest = labels[-(LONGEST_WALK - 1) :]
    return names + [".".join(rest[start:]) for start in range(len(rest))]


async def _record(resolver: Resolver, name: str) -> dict[str, str] | None:
    """The tags of the one DMARC record of a name; None if it has none."""
    try:
        texts = [record.decode("ascii", "replace") for record in await resolver.txt(name)]
    except NoSuchDomainError:
        return None
    except ResolutionError:
        raise
    records = [text for text in texts if text.partition(";")[0].replace(" ", "") == "v=DMARC1"]
    if len(records) != 1:
        return None
    tags = {}
    for part in records[0].split(";"):
        key, _, value = part.partition("=")
        tags[key.strip().lower()] = value.strip().lower()
    return tags
