"""A model hub on this machine: as much of its HTTP interface as bundles need."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    """Keeps repositories in memory; `address` is what `HF_ENDPOINT` is set to.

    Attributes:
      repositories: name -> path -> content.
      tokens: those that requests came with.
    """

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                hub.tokens.add(self.headers.get("Authorization", ""))
                self.answer(*hub.post(self.path, body))

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                self.answer(*hub.get(self.path.partition("?")[0]))

            def answer(self, code, content, headers=()):
                if not isinstance(content, bytes):
                    content = json.dumps(content).encode()
                self.send_response(code)
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def commit_of(self, name):
        return hashlib.sha1(json.dumps(sorted(self.repositories[name])).encode()).hexdigest()

    def post(self, path, body):
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}" if given.get("organization") else (
                given["name"])  # fmt: skip
            self.repositories.setdefault(name, {})
            return 200, {"url": f"{self.address}/{name}", "name": name}
        if path == "/api/validate-yaml":  # of the card's header
            return 200, {"errors": [], "warnings": []}
        owner, name, what = path.removeprefix("/api/models/").split("/")[:3]
        files = self.repositories[f"{owner}/{name}"]
        if what == "preupload":
            asked = json.loads(body)["files"]
            return 200, {"files": [{"path": file["path"], "uploadMode": "regular",
                                    "shouldIgnore": False} for file in asked]}  # fmt: skip
        if what == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = self.commit_of(f"{owner}/{name}")
            return 200, {"commitUrl": f"{self.address}/{owner}/{name}/commit/{commit}",
                         "commitOid": commit, "pullRequestUrl": None}  # fmt: skip
        return 404, {"error": f"no {what}"}

    def get(self, path):
        parts = path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        files, commit = self.repositories[name], self.commit_of(name)
        if is_api and parts[4:5] == ["tree"]:
            return 200, [
                {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for p, c in files.items()
            ]
        if is_api:
            siblings = [{"rfilename": path} for path in files]
            return 200, {"id": name, "modelId": name, "sha": commit, "siblings": siblings,
                         "tags": [], "private": True, "downloads": 0, "likes": 0}  # fmt: skip
        content = files.get("/".join(parts[4:]))
        if parts[2] != "resolve" or content is None:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        return 200, content, {"ETag": tag, "X-Repo-Commit": commit}
