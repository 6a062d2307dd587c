"""What is refused before a route is reached."""

from tests.serving.site import JOB, Site


def test_what_is_too_large_is_not_read(site):
    big = {"image": b"x" * 70_000}
    reply = site.post(big, task="animate")
    assert reply.status_code == 413 and "at most 0.0572205 MiB" in reply.json()["detail"]

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


def test_other_codecs_are_refused(site):
    body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx-a\r\n--b--\r\n'
    form = b"multipart/form-data; boundary=b"
    for kinds, code in (
        ([form], 422), ([form + b"; charset=UTF-8"], 422), ([form + b";charset=punycode"], 415),
        ([form + b'; Charset="utf-16"'], 415), ([form + b"; charset=hex", form], 415),
    ):  # fmt: skip
        headers = [(b"content-type", kind) for kind in kinds]
        assert site.client.post("/jobs", content=body, headers=headers).status_code == code


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


def test_pages_of_other_sites_are_refused(site):
    for place, code in (("cross-site", 403), ("same-site", 403), ("same-origin", 202)):
        reply = site.client.post("/jobs", data=JOB, headers={"sec-fetch-site": place})
        assert reply.status_code == code
        assert site.client.get("/info", headers={"sec-fetch-site": place}).status_code == 200
    # Without TLS, browsers tell where a page is from in this way alone.
    for place, code in (("http://elsewhere", 403), ("null", 403), ("http://x", 202)):
        assert site.client.post("/jobs", data=JOB, headers={"origin": place}).status_code == code
