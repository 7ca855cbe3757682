"""Which photos are opened, and that their names do not hang on where the catalogue lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sicot.catalogue.places import ANYWHERE, Places, absolute, joined

SHOP = Places("/data/shop/photos", ("/data/shop/photos", "/data/shop"))
BUCKET = Places("s3://shop/all?scheme=http", ("s3://shop/all?scheme=http",))


@pytest.mark.parametrize(
    ("places", "cell", "name", "address"),
    [
        (SHOP, "mug/1.jpg", "mug/1.jpg", "/data/shop/photos/mug/1.jpg"),
        (SHOP, "./a//1.jpg", "a/1.jpg", "/data/shop/photos/a/1.jpg"),
        (SHOP, "../old/1.jpg", "old/1.jpg", "/data/shop/old/1.jpg"),
        (SHOP, "a::b.jpg", "a::b.jpg", "/data/shop/photos/a::b.jpg"),
        (SHOP, "/data/shop/photos/1.jpg", "1.jpg", "/data/shop/photos/1.jpg"),
        (SHOP, "file:///data/shop/photos/a%20b.jpg", "a b.jpg", "/data/shop/photos/a b.jpg"),
        (SHOP, "s3://other/1.jpg", "s3://other/1.jpg", "s3://other/1.jpg"),
        (SHOP, "https://cdn/1.jpg?w=9", "https://cdn/1.jpg?w=9", "https://cdn/1.jpg?w=9"),
        (BUCKET, "mug/1.jpg", "mug/1.jpg", "s3://shop/all/mug/1.jpg?scheme=http"),
        (BUCKET, "s3://shop/all/1.jpg", "1.jpg", "s3://shop/all/1.jpg"),
        (Places("abfs://shop", ("abfs://shop",)), "1.jpg", "1.jpg", "abfs://shop/1.jpg"),
    ],
)
def test_what_is_opened(places: Places, cell: str, name: str, address: str) -> None:
    assert places.find(cell) == (name, address)


@pytest.mark.parametrize(
    ("places", "cell"),
    [
        (SHOP, "/etc/passwd"),
        (SHOP, "../../../etc/passwd"),
        (SHOP, "/data/shop/../other/1.jpg"),
        (SHOP, "/data/shopping/1.jpg"),
        (SHOP, "file:///etc/passwd"),
        (SHOP, "FILE://localhost/data/shop/%2e%2e/1.jpg"),
        (SHOP, "file://host/data/shop/1.jpg"),
        (SHOP, "local:///etc/passwd"),
        (SHOP, "http://169.254.169.254/latest/meta-data"),
        (SHOP, "http://[bad/a.jpg"),
        (SHOP, "simplecache::https://cdn/1.jpg"),
        (SHOP, "reference::file:///data/shop/x.json/a"),
        (SHOP, "https://cdn/zip://x::http://169.254.169.254"),
        (SHOP, "s3://shop/1.jpg?endpoint_override=169.254.169.254&scheme=http"),
        (BUCKET, "s3://shop/all/1.jpg?endpoint_override=169.254.169.254"),
        (BUCKET, "1.jpg?endpoint_override=169.254.169.254"),
        (BUCKET, "/etc/passwd"),
        (Places("abfs://shop/all", ("abfs://shop/all",)), "../secret/1.jpg"),
        (Places("abfs://shop/all", ("abfs://shop/all",)), "abfs://shop/all/../secret/1.jpg"),
        (Places("abfs://shop/all", ("abfs://shop/all",)), "a::http://169.254.169.254"),
    ],
)
def test_what_is_not_opened(places: Places, cell: str) -> None:
    assert places.find(cell) == (cell, None)


PARTS = [*"/.:?a%\0", "..", "//", "://", "::", "file://", "s3://", "http://", "/data/shop/"]
CELLS = st.lists(st.sampled_from(PARTS)).map("".join)


@given(CELLS)
@example("file:///data/shop/..%2f..%2fetc")
def test_no_cell_leads_out_of_the_folder(cell: str) -> None:
    name, address = SHOP.find(cell)
    assert name or not cell
    if address is not None and "://" not in address:
        assert Path(address).is_relative_to("/data/shop")
        assert ".." not in Path(address).parts
    elif address is not None:
        assert address.partition("://")[0] in ANYWHERE
        assert "::" not in address


@pytest.mark.parametrize("cell", ["mug/1.jpg", "../1.jpg", "{home}/mug/1.jpg", "file://{home}/photos/1.jpg"])
def test_a_name_does_not_hang_on_where_the_catalogue_lies(cell: str) -> None:
    names = {
        Places(f"{home}/photos", (home,)).find(cell.format(home=home))[0] for home in ("/srv/a/shop", "/data/shop")
    }
    assert len(names) == 1


def test_relative_names_are_joined_before_a_uris_query() -> None:
    assert joined("s3://shop/all/?scheme=http", "./a/b.jpg") == "s3://shop/all/a/b.jpg?scheme=http"
    assert joined("photos", "a.jpg") == str(Path("photos/a.jpg").absolute())
    assert absolute("file:///a/b%20c") == "/a/b c"
