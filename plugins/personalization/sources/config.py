"""The configuration of the sources: what stands in the list `sources`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.hooks import Duration, SiteFile, SitePath, Size
from plugins.personalization.sources import values

_FIELD_NAME = re.compile(r"[!-9;-~]+")
_HTTP_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HTTP_VALUE = re.compile(r"[\t -~]*")

_NEEDED = frozenset(
    {
        *("date", "from", "sender", "reply-to", "to", "cc", "subject", "message-id"),
        *("in-reply-to", "references", "received", "return-path", "mime-version"),
        *("dkim-signature", "list-unsubscribe", "list-unsubscribe-post"),
    }
)
"""Fields that must not be taken out of a message."""

PARAMETERS = ("address", "local_part", "domain", "sender", "stream", "campaign", "message_id")
"""What a query may ask by, besides `addresses`."""
_OF_ONE_RECIPIENT = {"address", "local_part", "domain", "message_id"}

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}

_PACKAGES = {"psycopg": "'mail-gateway[postgresql]'", "pymysql": "'mail-gateway[mysql]'"}

_Time = Annotated[Duration, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HeaderConfig(_Settings):
    """Values that the sending system puts into a header field of the message, as JSON."""

    name: str = Field(
        default="X-Merge-Data",
        description="The header field. It is read and removed: no recipient gets it.",
    )
    size: Size = Field(
        default=1 << 20,
        description="The largest header field, in octets; a larger one is refused.",
        json_schema_extra={"default": "1MiB"},
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header field")
        if name.lower() in _NEEDED or name.lower().startswith("content-"):
            raise ValueError(f"{name} would be removed from all mail; expected a field of your own")
        return name


class CsvConfig(_Settings):
    """Values in a table: a file with a row for each recipient, or several."""

    file: SitePath = Field(
        description="The file. Its first row names the columns. It is read again when it changes.",
        examples=["customers.csv"],
    )
    key: str = Field(default="email", description="The column with the recipient's address.")
    encoding: Literal["utf-8-sig", "utf-8", "cp932", "shift_jis", "euc-jp", "windows-1252"] = Field(
        default="utf-8-sig",
        description="The file's encoding; utf-8-sig is UTF-8 with or without a byte order mark.",
    )
    delimiter: str = Field(
        default=",", description="What stands between two values: one character, or the word tab."
    )
    bad_rows: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="What a row that is wrong means: the whole file is not used (refuse), or the "
        "row is left out and named in the log (skip).",
    )
    rows: str | None = Field(
        default=None,
        description="All rows of a recipient become a list of this name; without it, the last row "
        "of a recipient gives the values by column.",
    )

    @field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, delimiter: str) -> str:
        if delimiter == "tab":
            return "\t"
        if len(delimiter) != 1 or delimiter in '\r\n"\0' or not delimiter.isascii():
            raise ValueError('expected one character such as "," or ";", or the word tab')
        return delimiter


class SqlConfig(_Settings):
    """Values in a database."""

    url: SecretStr | None = Field(
        default=None,
        description="The database: postgresql://user:password@host/name, mysql://…, "
        "mariadb://… or sqlite:///file.db; or any other that SQLAlchemy has a driver for.",
    )
    url_file: SiteFile | None = Field(
        default=None,
        description="A file with the URL on its first line, to keep the password apart.",
    )
    query: str = Field(
        description="The query, with the parameters "
        + ", ".join(f":{name}" for name in PARAMETERS)
        + "; or with IN :addresses, which asks for many recipients at once.",
        examples=["SELECT name FROM customers WHERE email = :address"],
    )
    rows: str | None = Field(
        default=None,
        description="The rows of the answer become a list of this name; without it the answer is "
        "one row, whose columns are the values.",
    )
    key: str = Field(
        default="email",
        description="With :addresses, the column of the answer that tells whose row it is.",
    )
    batch: int = Field(
        default=100, ge=1, le=1000, description="With :addresses, how many are asked for at once."
    )
    wait: Duration = Field(
        default=0.005,
        le=1,
        description="With :addresses, how long an incomplete batch waits for others while the "
        "database is busy.",
        json_schema_extra={"default": "5ms"},
    )
    pool_size: int = Field(
        default=4, ge=1, le=100, description="Connections to the database, in each worker."
    )
    timeout: _Time = Field(
        default=5.0,
        description="How long a query may take.",
        json_schema_extra={"default": "5s"},
    )
    cache: _Time | None = Field(
        default=None, description="How long an answer is good for, such as 60s; null: not kept."
    )

    _url: Any = PrivateAttr()
    _parameters: frozenset[str] = PrivateAttr()

    @property
    def database(self) -> Any:
        """The URL as SQLAlchemy's `URL`, its driver filled in and its file absolute."""
        return self._url

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the parameters in the query."""
        return self._parameters

    @model_validator(mode="after")
    def _read(self, info: ValidationInfo) -> SqlConfig:
        try:
            import sqlalchemy
        except ModuleNotFoundError:
            message = "this source needs SQLAlchemy: pip install 'mail-gateway[sql]'"
            raise ValueError(message) from None
        if (self.url is None) == (self.url_file is None):
            raise ValueError("expected either url or url_file")
        if self.url is not None:
            text, where = self.url.get_secret_value(), "url"
        else:
            assert self.url_file is not None
            text, where = _first_line(self.url_file), str(self.url_file)
        try:
            url = sqlalchemy.make_url(text.strip())
            url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
            dialect = url.get_dialect()
            dialect.import_dbapi()
        except sqlalchemy.exc.NoSuchModuleError:
            raise ValueError(f"{where}: SQLAlchemy knows no such kind of database") from None
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{where}: the driver {error.name} is not installed; "
                f"pip install {_PACKAGES.get(str(error.name), error.name)}"
            ) from None
        except (sqlalchemy.exc.ArgumentError, ValueError):
            # The text of the error may hold the password.
            raise ValueError(
                f"{where}: is no database URL; for example: postgresql://user:password@host/name"
            ) from None
        if dialect.is_async:
            raise ValueError(f"{where}: {url.drivername} is an asynchronous driver; name another")
        if url.get_backend_name() == "sqlite":
            url = _sqlite(url, (info.context or {}).get("base"))
        self._url = url
        self._parameters = frozenset(sqlalchemy.text(self.query).compile().params)
        self._check_parameters()
        return self

    def _check_parameters(self) -> None:
        unknown = self._parameters - {*PARAMETERS, "addresses"}
        if unknown:
            known = ", ".join(f":{name}" for name in (*PARAMETERS, "addresses"))
            raise ValueError(
                f"the query has an unknown parameter :{min(unknown)}; known are {known}. "
                r"A colon that begins no parameter is written \:"
            )
        if "addresses" in self._parameters:
            singly = self._parameters & _OF_ONE_RECIPIENT
            if singly:
                raise ValueError(
                    f"with :addresses the query asks for many recipients, and cannot ask by "
                    f":{min(singly)}"
                )
        elif not self._parameters:
            raise ValueError("the query asks for nobody: expected :address or another parameter")


class HttpConfig(_Settings):
    """Values that an HTTP server knows, such as a recommendation engine."""

    url: str = Field(
        description="Where to ask: POST with the recipients as JSON.",
        examples=["https://api.example.com/values"],
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Header fields of the request, such as {Authorization: Bearer …}.",
    )
    timeout: _Time = Field(
        default=2.0,
        description="How long an answer may take, with all retries.",
        json_schema_extra={"default": "2s"},
    )
    retries: int = Field(
        default=1, ge=0, le=5, description="New attempts where the connection fails."
    )
    fallback: dict[str, Any] | None = Field(
        default=None,
        description="The values where the server fails or knows nothing of a recipient; without "
        "them a failure means that the client has to come again.",
    )
    batch: int = Field(default=50, ge=1, le=1000, description="The most recipients in one request.")
    wait: Duration = Field(
        default=0.005,
        le=1,
        description="How long an incomplete batch waits for others while the server is busy.",
        json_schema_extra={"default": "5ms"},
    )
    connections: int = Field(
        default=8, ge=1, le=100, description="Requests at a time, in each worker."
    )
    size: Size = Field(
        default=4 << 20,
        description="The largest answer, in octets.",
        json_schema_extra={"default": "4MiB"},
    )
    cache: _Time | None = Field(
        default=None, description="How long an answer is good for, such as 60s; null: not kept."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            import aiohttp  # noqa: F401 - only whether it is there
        except ModuleNotFoundError:
            message = "this source needs aiohttp: pip install 'mail-gateway[http]'"
            raise ValueError(message) from None
        example = "for example: https://api.example.com/values"
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            usable = usable and parts.port != 0 and url.isprintable() and " " not in url
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"expected the URL of an HTTP server; {example}")
        if parts.username is not None:
            raise ValueError(f"a password does not belong into a URL but into headers; {example}")
        return url

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not _HTTP_TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header field")
            if not _HTTP_VALUE.fullmatch(value.get_secret_value()):
                raise ValueError(f"the value of {name} has a character that HTTP cannot carry")
        return headers

    @field_validator("fallback")
    @classmethod
    def _check_fallback(cls, fallback: dict[str, Any] | None) -> dict[str, Any] | None:
        return fallback if fallback is None else values.check(fallback)


Settings = HeaderConfig | CsvConfig | SqlConfig | HttpConfig


class SourceConfig(BaseModel):
    """One source: a mapping with the one key that says which."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"minProperties": 1, "maxProperties": 1}
    )

    header: HeaderConfig | None = Field(
        default=None, description="A header field of the message, with JSON."
    )
    csv: CsvConfig | None = Field(default=None, description="A file with a table.")
    sql: SqlConfig | None = Field(default=None, description="A database.")
    http: HttpConfig | None = Field(default=None, description="An HTTP server.")

    @property
    def settings(self) -> Settings:
        """Those of the one source."""
        (settings,) = [
            one for one in (self.header, self.csv, self.sql, self.http) if one is not None
        ]
        return settings

    @model_validator(mode="before")
    @classmethod
    def _one(cls, data: Any) -> Any:
        if not isinstance(data, dict) or set(data) - set(cls.model_fields):
            return data  # which pydantic says better
        if len(data) != 1:
            raise ValueError(
                "expected one source after each dash: header, csv, sql or http; "
                "for example: - csv: {file: customers.csv}"
            )
        return {key: {} if value is None else value for key, value in data.items()}


def _first_line(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{path}: cannot be read") from None


def _sqlite(url: Any, base: Path | None) -> Any:
    """The URL of an SQLite file that is there, to read from and never to write or make."""
    if not url.database or url.database == ":memory:":
        raise ValueError("url: expected the file of the database: sqlite:///customers.db")
    if url.database.startswith("file:"):
        return url
    path = Path(url.database) if base is None else Path(base) / url.database
    query = {**url.query, "mode": "ro", "uri": "true"}
    return url.set(database=path.absolute().as_uri(), query=query)
