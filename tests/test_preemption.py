import http.server
import signal
import threading

import pytest

from xactor_jax.preemption import watch_maintenance

UNAVAILABLE, BROKEN_OFF = "unavailable", "broken off"


@pytest.fixture
def metadata_server(monkeypatch):
    """A server that answers as Google Cloud's does, or fails for a while; the requests it got."""
    wanted = [UNAVAILABLE, "NONE", UNAVAILABLE, BROKEN_OFF, "MIGRATE_ON_HOST_MAINTENANCE"]
    answers = iter([*wanted, "TERMINATE_ON_HOST_MAINTENANCE"])
    requests = []
    monkeypatch.setattr("xactor_jax.preemption.SECONDS_AFTER_AN_ERROR", 0)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.path, self.headers["Metadata-Flavor"]))
            answer = next(answers)
            if answer == UNAVAILABLE:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("ETag", f"tag{len(requests)}")
            self.send_header("Content-Length", str(len(answer) + 9 * (answer == BROKEN_OFF)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("localhost", 0), Handler) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", f"localhost:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield requests
        server.shutdown()
        serving.join()


def test_notice_of_maintenance_becomes_the_signal_to_save_and_stop(metadata_server):
    caught = []
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append("SIGTERM"))
    try:
        watch_maintenance().join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == ["SIGTERM"]
    paths, flavours = zip(*metadata_server, strict=True)
    assert set(flavours) == {"Google"}
    # Each request waits for a change after what the last one that was answered was told.
    tags = [path.rpartition("last_etag=")[2] for path in paths]
    assert tags == ["0", "0", "tag2", "tag2", "tag2", "tag5"]
    assert all("/instance/maintenance-event?wait_for_change=true" in path for path in paths)


def test_elsewhere_than_in_the_cloud_nobody_is_asked_again(monkeypatch, caplog):
    monkeypatch.setenv("GCE_METADATA_HOST", "localhost:1")
    watch_maintenance().join()
    assert "no notices of maintenance" in caplog.text
