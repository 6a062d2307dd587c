"""What the interface refuses before it looks at a job, or has no room for."""

import errno
import tempfile
import threading
from pathlib import Path

import anyio
import httpx
import pytest
from fastapi.testclient import TestClient

from lumiere_jax.runtime import web_server
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving import command, guard
from lumiere_jax.serving.command import names
from tests.serving.site import JOB, Site
from tests.serving.test_uploads import picture

FULL = OSError(errno.ENOSPC, "No space left on device")


def test_what_is_too_large_is_not_read(site):
    big = {"image": b"x" * 70_000}
    reply = site.post(big, task="animate")
    assert reply.status_code == 413 and "the limit is 0.0572205 MiB" in reply.json()["detail"]

    sent = []

    def endless():
        for _ in range(1000):
            sent.append(1)
            yield b"x" * 10_000

    kind = {"content-type": "multipart/form-data; boundary=b"}
    reply = site.client.post("/jobs", content=endless(), headers=kind)
    assert reply.status_code == 413


def test_other_bodies(site):
    reply = site.client.post("/jobs", json=JOB)
    assert reply.status_code == 415 and "multipart/form-data" in reply.json()["detail"]
    assert site.client.post("/jobs", data=JOB).status_code == 202
    kind = {"content-type": "multipart/form-data"}
    reply = site.client.post("/jobs", content=b"\0" * 99, headers=kind)
    assert reply.status_code in (400, 422) and isinstance(reply.json()["detail"], str)


def test_keys(bundle, tmp_path):
    site = Site(bundle, tmp_path, keys=["k" * 16, "l" * 16])
    for headers in (
        {}, {"authorization": "Bearer wrong"}, {"authorization": "Basic " + "k" * 16},
        {"x-api-key": "ü".encode()}, {"x-api-key": ""},
    ):  # fmt: skip
        reply = site.client.post("/jobs", data=JOB, headers=headers)
        assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Bearer"
        assert site.client.get("/metrics", headers=headers).status_code == 401
    site.client.headers["authorization"] = "Bearer " + "l" * 16
    job = site.post().json()["id"]
    assert site.client.get("/metrics").status_code == 200
    del site.client.headers["authorization"]
    assert site.client.get(f"/jobs/{job}").status_code == 200  # its name is what it takes
    assert site.client.get("/info").json()["needs_key"] is True
    assert site.client.delete(f"/jobs/{job}").status_code == 401
    reply = site.client.delete(f"/jobs/{job}", headers={"x-api-key": "k" * 16})
    assert reply.json()["state"] == "cancelled"
    site.database.close()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("multipart/form-data; boundary=b", 202),
        ("multipart/form-data; boundary=b; charset=utf-8", 202),
        ('Multipart/Form-Data; Charset="UTF-8"; boundary=b', 202),
        ("multipart/form-data; boundary=b; charset=punycode", 415),
        ('multipart/form-data; CHARSET="punycode" ; boundary=b', 415),
        ("multipart/form-data; boundary=b; charset=utf-8; charset=punycode", 415),
        ("multipart/form-data; boundary=b; charset=latin-1", 415),
        ("application/x-www-form-urlencoded; charset=punycode", 415),
        ("text/plain", 415),
    ],
)
def test_codecs_that_a_form_names(shared_site, kind, code):
    body = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in JOB.items()
    )
    content, plain = f"{body}--b--\r\n".encode(), {"content-type": kind}
    assert shared_site.client.post("/jobs", content=content, headers=plain).status_code == code
    # Whichever of two headers the routes would take.
    twice = [("content-type", kind), ("content-type", "multipart/form-data; boundary=b")]
    for headers in (twice, twice[::-1]):
        reply = shared_site.client.post("/jobs", content=content, headers=headers)
        assert reply.status_code == 415


def test_long_texts_are_not_even_gathered(site):
    for field in ("prompt", "seed"):
        for more in ({}, {"files": {"image": b"x"}}):
            reply = site.client.post("/jobs", data=JOB | {field: "1" * 30_000}, **more)
            assert reply.status_code == 400 and "maximum size" in reply.json()["detail"]
    reply = site.post(prompt="\N{GRINNING FACE}" * 50)  # the most that is taken
    assert reply.status_code == 202, reply.text


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 202),
        ({"origin": "http://x"}, 202),
        ({"origin": "http://X:80"}, 202),
        ({"origin": "https://x", "host": "x:443"}, 202),
        ({"origin": "http://x:8000", "host": "x:8000"}, 202),
        ({"origin": "http://[::1]:8000", "host": "[::1]:8000"}, 202),
        ({"origin": "http://x:8001", "host": "x:8000"}, 403),
        ({"origin": "http://evil"}, 403),
        ({"origin": "http://x.evil"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        # A proxy that calls the server by another name.
        ({"origin": "http://public", "x-forwarded-host": "public, x"}, 202),
        ({"origin": "https://public", "sec-fetch-site": "same-origin"}, 202),
        ({"origin": "http://x", "sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 202),
        ({"sec-fetch-site": "same-origin"}, 202),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_pages_of_other_sites_are_refused(shared_site, headers, code):
    reply = shared_site.post(headers=headers)
    assert reply.status_code == code, reply.text
    delete = shared_site.client.delete(
        "/jobs/00000000-0000-4000-8000-000000000000", headers=headers
    )
    assert delete.status_code == (404 if code == 202 else 403)
    assert shared_site.client.get("/info", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("proxies", "peer", "said", "is_same"),
    [
        ([], "10.0.0.1", "", True),
        ([], "10.0.0.2", "", False),
        ([], "::ffff:10.0.0.1", "", True),  # as a server at :: calls it
        ([], "10.0.0.2", "10.0.0.1", False),  # anyone can say so
        ([], "127.0.0.1", "10.0.0.1", False),
        (["127.0.0.1"], "127.0.0.1", "10.0.0.1", True),
        (["127.0.0.0/8"], "127.0.0.1", "9.9.9.9, 10.0.0.1", True),  # the proxy's word is the last
        (["127.0.0.1"], "10.0.0.2", "10.0.0.1", False),
        (["127.0.0.1"], "127.0.0.1", "10.0.0.1, nobody", False),
    ],
)
def test_one_address_does_not_fill_the_queue(bundle, tmp_path, proxies, peer, said, is_same):
    site = Site(bundle, tmp_path, queue_per_client=1)
    config = web_server.make_server(site.app, **command.trusting(proxies)).config
    config.load()
    codes = []
    for host, headers in (("10.0.0.1", {}), (peer, {"x-forwarded-for": said} if said else {})):
        client = TestClient(config.loaded_app, base_url="http://x", client=(host, 1))
        codes.append(client.post("/api/v1/jobs", data=JOB, headers=headers).status_code)
    assert codes == [202, 429 if is_same else 202]
    site.database.close()


def test_of_ipv6_a_network_is_one_client():
    assert guard._network("2001:db8:1:2::3") == guard._network("2001:db8:1:2:ffff::9%eth0")
    assert guard._network("2001:db8:1:2::3") != guard._network("2001:db8:1:3::3")


def test_proxies_that_cannot_be_named():
    command.trusting(["10.0.0.7", "10.0.0.0/8", "fd00::/8"])
    with pytest.raises(UserError, match="'proxy.org' is no address or network; write 10.0.0.7"):
        command.trusting(["10.0.0.7", "proxy.org"])


def test_names_of_the_server():
    assert names("127.0.0.1", is_open=True, allowed=[]) == {"localhost", "127.0.0.1"}
    assert names("Box", is_open=True, allowed=["Video.org "]) == {"localhost", "box", "video.org"}
    assert names("0.0.0.0", is_open=False, allowed=[]) is None
    assert "a" in names("0.0.0.0", is_open=False, allowed=["a"])


def test_names_that_others_gave_to_the_loopback(bundle, tmp_path):
    site = Site(bundle, tmp_path, hosts=names("box", is_open=True, allowed=["video.org"]))
    for host, code in (
        ("localhost:8000", 200), ("LOCALHOST", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200),
        ("box:80", 200), ("video.org", 200), ("192.168.0.2", 200), ("evil.org:8000", 403),
        ("localhost.evil.org", 403), ("127.0.0.1.evil.org", 403), ("[evil]", 403),
    ):  # fmt: skip
        reply = site.client.get("/info", headers={"host": host})
        assert reply.status_code == code, host
        reply = site.client.get("http://x/", headers={"host": host})  # the page, being loaded
        assert reply.status_code == (503 if code == 200 else code), host
    assert "--allowed_hosts" in reply.json()["detail"]
    site.database.close()


def test_uploads_wait_on_the_disk_for_their_turn_and_few_of_them(site, monkeypatch):
    from starlette.datastructures import UploadFile

    from lumiere_jax.serving import decoding

    may_go, read, replies = threading.Event(), [], []
    read_file, decode = UploadFile.read, decoding.decode

    async def counted_read(file, size=-1):
        read.append(file)
        return await read_file(file, size)

    def slow_decode(*arguments, **options):
        may_go.wait(300)
        return decode(*arguments, **options)

    monkeypatch.setattr(UploadFile, "read", counted_read)
    monkeypatch.setattr(decoding, "decode", slow_decode)
    transport = httpx.ASGITransport(site.app)
    another = httpx.ASGITransport(site.app, client=("192.0.2.7", 1))

    async def post(client):
        files = {"image": picture()}
        replies.append(await client.post("/jobs", data=JOB | {"task": "animate"}, files=files))

    async def main():
        client = httpx.AsyncClient(transport=transport, base_url="http://x/api/v1")
        other = httpx.AsyncClient(transport=another, base_url="http://x/api/v1")
        with anyio.fail_after(300):
            async with client, other, anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(post, client)
                    while len(read) < min(number + 1, 2):
                        await anyio.sleep(0.01)
                await anyio.sleep(0.3)
                assert len(read) == 2
                await post(client)  # a quarter of all is one client's
                assert replies[0].status_code == 429 and replies[0].headers["retry-after"]
                group.start_soon(post, other)
                await anyio.sleep(0.3)
                assert len(replies) == 1  # waits
                assert (await client.post("/jobs", data=JOB)).status_code == 202
                may_go.set()
        assert len(read) == 5

    try:
        anyio.run(main)
    finally:
        may_go.set()
    # The queue of the site has four places.
    assert sorted(reply.status_code for reply in replies) == [202] * 3 + [429] * 3


@pytest.mark.parametrize("place", ["spool", "scratch"])
def test_a_full_disk(site, monkeypatch, place):
    def full(*arguments):
        raise FULL

    if place == "spool":
        monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", full)
    else:
        monkeypatch.setattr(Path, "write_bytes", full)
    reply = site.post({"image": picture()}, task="animate")
    assert reply.status_code == 503 and reply.headers["retry-after"], reply.text
    assert reply.json() == {"detail": "the server cannot store files now; try again later"}
    monkeypatch.undo()
    assert site.post({"image": picture()}, task="animate").status_code == 202
