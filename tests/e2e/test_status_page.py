"""The page at "/": open to all, without data or anything inline; what it shows is behind the key."""

import re

from server_process import Server


def test_the_page_holds_no_data_and_no_inline_code():
    with Server(None, "--time", "constant:ttft=1ms,tpot=1ms", "--served-model-name", "a-secret-model", verb="simulate",
                env={"SEXTANT_API_KEY": "the-key"}) as server:
        page = server.get("/", headers={})
        assert page.status == 200 and page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", page.body)
        for path in re.findall(r'(?:src|href)="([^"]+)"', page.body):
            asset = server.get(path, headers={})
            assert asset.status == 200 and asset.headers["x-content-type-options"] == "nosniff", path
            assert "a-secret-model" not in asset.body
        assert "a-secret-model" not in page.body and "the-key" not in page.body
        assert server.get("/v1/models", headers={}).status == 401
        assert server.post("/", {}).status == 405
