from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins.personalization.sources import SourceError, Sources, build, csv_file
from plugins.personalization.sources.csv_index import (
    Built,
    Index,
    IndexingError,
    Table,
    TableError,
    open_index,
)
from plugins.personalization.sources.csv_index import build as build_index
from plugins.personalization.sources.values import MOST_ROWS
from tests.assembly import until
from tests.plugins.personalization_site import configs, context, started, values_of

CUSTOMERS = (
    "email,name,city\n"
    "taro@example.com,太郎,東京\n"
    'hanako@example.com,"花子, ""H""",大阪\n'
)  # fmt: skip


def table(path: Path, **how: Any) -> Table:
    usual: dict[str, Any] = {"key": "email", "encoding": "utf-8-sig", "delimiter": ","}
    return Table(str(path), **(usual | {"skip": False} | how))


def indexed(path: Path, **how: Any) -> Index:
    """The index of a file, made in this process."""
    target = path.with_suffix(".sqlite")
    build_index(table(path, **how), target)
    index = open_index(target)
    assert index is not None
    return index


def replace(path: Path, text: str) -> None:
    """A new file in the place of the old one, as `mv` puts it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "LOOK_EVERY", 0.02)


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    path = tmp_path / "customers.csv"
    path.write_text(CUSTOMERS)
    return path


def source(**how: Any) -> dict[str, Any]:
    return {"csv": {"file": "customers.csv", **how}}


async def test_a_recipient_has_the_columns_of_its_row(tmp_path: Path, customers: Path) -> None:
    async with started(tmp_path, source()) as sources:
        assert await values_of(sources, "taro@example.com") == {
            "email": "taro@example.com",
            "name": "太郎",
            "city": "東京",
        }
        assert (await values_of(sources, "HANAKO@Example.com"))["name"] == '花子, "H"'
        assert await values_of(sources, "jiro@example.com") == {}


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", CUSTOMERS),
        ("utf-8-sig", "\ufeff" + CUSTOMERS),
        ("utf-8", CUSTOMERS),
        ("cp932", CUSTOMERS + "jiro@example.com,髙﨑①,㈱\n"),
        ("shift_jis", CUSTOMERS + "jiro@example.com,髙﨑①,㈱\n"),
        ("euc-jp", CUSTOMERS),
        ("windows-1252", "email,name\ntaro@example.com,Jürgen €\n"),
    ],
)
def test_encodings(tmp_path: Path, encoding: str, text: str) -> None:
    codec = {"shift_jis": "cp932", "utf-8-sig": "utf-8"}.get(encoding, encoding)
    (tmp_path / "customers.csv").write_text(text, codec)
    index = indexed(tmp_path / "customers.csv", encoding=encoding)
    for row in csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))):
        assert index.rows(row["email"]) == [row]


def test_delimiter_line_ends_key_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_bytes(
        b' Name \t Mail\r\nTaro\t taro@example.com \r\n\r\n"two\nlines"\thanako@example.com\r\n'
    )
    index = indexed(tmp_path / "customers.csv", delimiter="\t", key="Mail")
    assert index.rows("taro@example.com") == [{"Name": "Taro", "Mail": "taro@example.com"}]
    assert index.rows("hanako@example.com")[0]["Name"] == "two\nlines"


async def test_the_last_row_counts_and_the_own_case_goes_first(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text(
        "email,n\ntaro@x.jp,1\nTaro@X.jp,2\ntaro@x.jp,3\nTARO@x.jp,4\n"
    )
    async with started(tmp_path, source()) as sources:
        wanted = {"taro@x.jp": "3", "Taro@x.jp": "2", "TARO@X.JP": "4", "tarO@x.jp": "4"}
        for address, n in wanted.items():
            assert (await values_of(sources, address))["n"] == n


async def test_all_rows_as_a_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "".join([f"many@x.jp,{number}\n" for number in range(MOST_ROWS)])
    rows += "more@x.jp,1\n" * (MOST_ROWS + 1)
    (tmp_path / "customers.csv").write_text(
        f"email,item\ntaro@x.jp,tea\njiro@x.jp,rice\ntaro@x.jp,cups\n{rows}"
    )
    async with started(tmp_path, source(rows="lines")) as sources:
        assert await values_of(sources, "taro@x.jp") == {
            "lines": [
                {"email": "taro@x.jp", "item": "tea"},
                {"email": "taro@x.jp", "item": "cups"},
            ]
        }
        many = (await values_of(sources, "many@x.jp"))["lines"]
        assert [row["item"] for row in many] == [str(number) for number in range(MOST_ROWS)]
        assert await values_of(sources, "nobody@x.jp") == {}
        with pytest.raises(SourceError) as refused:
            await values_of(sources, "more@x.jp")
    assert refused.value.temporary
    assert "more than 1000 rows for 'more@x.jp'" in caplog.text
    async with started(tmp_path, source()) as sources:
        assert await values_of(sources, "more@x.jp")


def test_names_of_columns_may_be_anything(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text(
        'email,"\'); DROP TABLE rows; --",rowid,__class__,c0\ntaro@x.jp,a,b,c,d\n'
    )
    (known,) = indexed(tmp_path / "customers.csv").rows("taro@x.jp")
    assert list(known.values()) == ["taro@x.jp", "a", "b", "c", "d"]
    assert "'); DROP TABLE rows; --" in known


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"taro@x.jp", "has 1 values for 2 columns"),
        (b"taro@x.jp,a,b", "has 3 values for 2 columns"),
        (b",name", "has no address in the column email"),
        (b"taro,name", "has no address in the column email"),
        (b"@x.jp,name", "has no address in the column email"),
        (b"taro@x.jp,a\0b", "has a NUL character"),
        (b'taro@x.jp,"a" b', "',' expected after '\"'"),
        (b"taro@x.jp," + b"x" * 200_000, "field larger than field limit (131072)"),
        (b"taro@x.jp,\x91\xbe\x98Y", "is not utf-8-sig"),
        (b"taro@x.jp,\xed\xa0\x80", "is not utf-8-sig"),
    ],
)
def test_a_bad_row_refuses_the_file_or_is_left_out(tmp_path: Path, row: bytes, reason: str) -> None:
    path, target = tmp_path / "customers.csv", tmp_path / "index.sqlite"
    path.write_bytes(b"email,name\nfirst@x.jp,1\n" + row + b"\nlast@x.jp,2\n")
    with pytest.raises(TableError) as refused:
        build_index(table(path), target)
    assert str(refused.value) == f"{path}:3: {reason}"
    assert [left.name for left in tmp_path.iterdir()] == ["customers.csv"]
    built = build_index(table(path, skip=True), target)
    assert built == Built(rows=2, bad=1, named=[f"{path}:3: {reason}"])
    index = open_index(target)
    assert index is not None
    assert index.rows("first@x.jp")[0]["name"] == "1"
    assert index.rows("last@x.jp")[0]["name"] == "2"
    assert index.rows("taro@x.jp") == []


def test_a_quotation_mark_that_never_ends_says_how_far_it_reaches(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_text('email,name\nfirst@x.jp,1\ntaro@x.jp,"2\nhanako@x.jp,3\n')
    built = build_index(table(path, skip=True), tmp_path / "index.sqlite")
    assert built == Built(1, 1, [f"{path}:3-4: unexpected end of data"])


async def test_bad_rows_that_are_left_out_are_in_the_log(
    tmp_path: Path, customers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    customers.write_text(CUSTOMERS + "jiro@example.com\n")
    async with started(tmp_path, source(bad_rows="skip")) as sources:
        assert await values_of(sources, "taro@example.com")
    assert f"row left out: {customers}:4: has 1 values for 3 columns" in caplog.text
    assert f"{customers}: 1 rows left out, 2 used" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "1: is empty; expected a row with the names of the columns"),
        ('name,"市\n町"\n', "1: has no column 'email'; its columns are: name, 市?町"),
        ("email,\n", "1: column 2 has no name"),
        ("email,a,a\n", "1: two columns have the name 'a'"),
        ('email,"a" b\n', "1: ',' expected after '\"'"),
        ("email," + ",".join(f"c{n}" for n in range(1000)), "1: has more than 1000 columns"),
    ],
)
def test_a_header_row_that_cannot_be_used(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(text)
    for skip in (False, True):
        with pytest.raises(TableError) as refused:
            build_index(table(path, skip=skip), tmp_path / "index.sqlite")
        assert str(refused.value) == f"{path}:{reason}"


def test_a_file_without_rows_knows_nobody(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text("email,name\n")
    assert indexed(tmp_path / "customers.csv").rows("taro@x.jp") == []


async def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match=r"customers\.csv: cannot be read: No such file"):
        async with started(tmp_path, source()):
            pass
    (tmp_path / "customers.csv").mkdir()
    with pytest.raises(IndexingError, match=r"customers\.csv: cannot be indexed: Is a directory"):
        async with started(tmp_path, source()):
            pass


# Changes.


async def eventually(sources: Sources, address: str, name: str) -> None:
    async with asyncio.timeout(30):
        while (await values_of(sources, address)).get("name") != name:
            await asyncio.sleep(0.01)


async def test_a_new_file_is_read(tmp_path: Path, customers: Path, impatient: None) -> None:
    async with started(tmp_path, source()) as sources:
        replace(customers, "email,name\ntaro@example.com,Taro\njiro@example.com,Jiro\n")
        await eventually(sources, "taro@example.com", "Taro")
        assert await values_of(sources, "hanako@example.com") == {}
        customers.write_text("email,name\ntaro@example.com,again\n")
        await eventually(sources, "taro@example.com", "again")


async def test_the_values_stay_while_the_new_file_is_wrong_or_gone(
    tmp_path: Path, customers: Path, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(tmp_path, source()) as sources:
        replace(customers, "email,name\ntaro@example.com\n")
        await until(lambda: "customers.csv:2: has 1 values" in caplog.text, "the complaint")
        assert (await values_of(sources, "taro@example.com"))["name"] == "太郎"
        customers.unlink()
        await until(lambda: "cannot be read: No such file" in caplog.text, "the next complaint")
        assert (await values_of(sources, "taro@example.com"))["name"] == "太郎"
        replace(customers, "email,name\ntaro@example.com,Taro\n")
        await eventually(sources, "taro@example.com", "Taro")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all("the values stay as they were" in record.getMessage() for record in errors)


async def test_a_file_that_is_being_written_is_left_alone(
    tmp_path: Path, customers: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    build_once = csv_file.CsvSource._build

    async def counted(self: csv_file.CsvSource, target: Path) -> None:
        built.append(customers.stat().st_size)
        await build_once(self, target)

    monkeypatch.setattr(csv_file, "LOOK_EVERY", 0.2)
    async with started(tmp_path, source()) as sources:
        monkeypatch.setattr(csv_file.CsvSource, "_build", counted)
        with customers.open("w") as file:
            file.write("email,name\n")
            for number in range(30):
                file.write(f"taro@example.com,{number}\n")
                file.flush()
                await asyncio.sleep(0.02)
        await eventually(sources, "taro@example.com", "29")
    assert built == [customers.stat().st_size]


# The index that workers share.


def indexes(folder: Path) -> list[Path]:
    return list((folder / "data").glob("*.sqlite"))


async def test_several_workers_build_it_once(
    tmp_path: Path, customers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []
    build_once = csv_file.CsvSource._build

    async def counted(self: csv_file.CsvSource, target: Path) -> None:
        built.append(target)
        await build_once(self, target)

    monkeypatch.setattr(csv_file.CsvSource, "_build", counted)
    workers = [Sources(build(configs(tmp_path, source()))) for _ in range(4)]
    await asyncio.gather(*[worker.start(context(tmp_path)) for worker in workers])
    try:
        assert len(built) == 1
        for worker in workers:
            assert (await values_of(worker, "taro@example.com"))["name"] == "太郎"
    finally:
        await asyncio.gather(*[worker.stop() for worker in workers])
    async with started(tmp_path, source()):
        assert len(built) == 1, "it is there already after a restart"
    async with started(tmp_path, source(bad_rows="skip")):
        assert len(built) == 2, "it is read in another way"
    assert len(indexes(tmp_path)) == 1, "the old one is removed"
    async with started(tmp_path, {"header": {}}):
        assert list((tmp_path / "data").iterdir()) == [], "no customer's data is left behind"


async def test_what_a_builder_left_that_was_killed_is_removed(
    tmp_path: Path, customers: Path
) -> None:
    (tmp_path / "data").mkdir()
    name = table(customers).index_name.removesuffix(".sqlite")
    (tmp_path / "data" / f"{name}.12345.part").write_bytes(b"half")
    (tmp_path / "data" / "csv-0123456789abcdef.lock").touch()
    (tmp_path / "data" / f"{name}.sqlite").write_bytes(b"SQLite format 3\0 and nothing else")
    async with started(tmp_path, source()) as sources:
        assert await values_of(sources, "taro@example.com")
        left = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert left == [f"{name}.lock", f"{name}.sqlite"]


async def test_an_index_of_a_file_that_changed_while_nobody_looked_is_built_anew(
    tmp_path: Path, customers: Path
) -> None:
    async with started(tmp_path, source()) as sources:
        assert (await values_of(sources, "taro@example.com"))["name"] == "太郎"
    replace(customers, "email,name\ntaro@example.com,Taro\n")
    async with started(tmp_path, source()) as sources:
        assert (await values_of(sources, "taro@example.com"))["name"] == "Taro"


async def test_stopping_ends_a_build(tmp_path: Path, customers: Path) -> None:
    rows = "".join([f"customer{number}@example.com,{number}\n" for number in range(100_000)])
    customers.write_text("email,name\n" + rows)
    sources = Sources(build(configs(tmp_path, source())))
    starting = asyncio.create_task(sources.start(context(tmp_path)))
    parts = await until(
        lambda: list((tmp_path / "data").glob("*.part")) or starting.done(), "the build"
    )
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert not indexes(tmp_path)
    pid = int(parts[0].suffixes[0][1:])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_builder_that_dies_is_started_again_later(
    tmp_path: Path,
    customers: Path,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(csv_file, "TRY_AGAIN", 0.05)
    async with started(tmp_path, source()) as sources:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/bin/false")
            replace(customers, "email,name\ntaro@example.com,Taro\n")
            complaint = "customers.csv: cannot be indexed: exit status 1; the values stay"
            await until(lambda: complaint in caplog.text, "the complaint")
            broken.setattr(sys, "executable", str(tmp_path / "none"))
            await until(lambda: "No such file or directory" in caplog.text, "the next one")
            assert (await values_of(sources, "taro@example.com"))["name"] == "太郎"
        await eventually(sources, "taro@example.com", "Taro")


async def test_without_a_builder_nothing_starts(
    tmp_path: Path, customers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(IndexingError, match=r"customers\.csv: cannot be indexed: exit status 1"):
        async with started(tmp_path, source()):
            pass


def test_the_program_says_what_became_of_the_file(tmp_path: Path, customers: Path) -> None:
    def run(**how: Any) -> tuple[int, Any]:
        arguments = json.dumps(asdict(table(customers, **how))), str(tmp_path / "index.sqlite")
        program = "plugins.personalization.sources.csv_index"
        done = subprocess.run(
            [sys.executable, "-P", "-m", program, *arguments], capture_output=True, check=False
        )
        return done.returncode, json.loads(done.stdout)

    assert run() == (0, {"rows": 2, "bad": 0, "named": []})
    status, answer = run(key="mail")
    assert status == 1
    assert "has no column 'mail'" in answer["refused"]


def test_only_the_first_bad_rows_are_named(tmp_path: Path, customers: Path) -> None:
    customers.write_text("email,name\n" + "bad\n" * 1000)
    built = build_index(table(customers, skip=True), tmp_path / "index.sqlite")
    assert (built.rows, built.bad, len(built.named)) == (0, 1000, 20)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, customers: Path) -> None:
    with pytest.raises(IndexingError, match="cannot be indexed"):
        build_index(table(customers), tmp_path / "none" / "index.sqlite")
    index = open_index(tmp_path / "none" / "index.sqlite")
    assert index is None


CELLS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(st.from_regex(r"[A-Za-z.]{1,5}@[a-z]{1,3}\.jp", fullmatch=True), CELLS))
def test_what_python_writes_is_read(tmp_path: Path, cells: dict[str, str]) -> None:
    path = tmp_path / "customers.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["name", "email"])
        writer.writerows([cell, address] for address, cell in cells.items())
    index = indexed(path)
    for address, cell in cells.items():
        assert {"name": cell, "email": address} in index.rows(address)
    index.connection.close()
