import http.server
import signal
import threading

import pytest

from xactor_jax.preemption import watch_maintenance

UNAVAILABLE, BROKEN_OFF = "unavailable", "broken off"
MIGRATE, TERMINATE = "MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"


@pytest.fixture
def metadata_server(monkeypatch, request):
    """A server that gives its parameter's answers, as Google Cloud's does, or fails for a while;
    the requests it got."""
    answers = iter(request.param)
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


def signals_of_a_watch():
    """The signals that come until it ends."""
    caught = []
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append("SIGTERM"))
    try:
        watch_maintenance().join()
    finally:
        signal.signal(signal.SIGTERM, before)
    return caught


@pytest.mark.parametrize(
    "metadata_server",
    [[UNAVAILABLE, "NONE", UNAVAILABLE, BROKEN_OFF, MIGRATE, TERMINATE]],
    indirect=True,
    ids=["announced"],
)
def test_notice_of_maintenance_becomes_the_signal_to_save_and_stop(metadata_server):
    assert signals_of_a_watch() == ["SIGTERM"]
    paths, flavours = zip(*metadata_server, strict=True)
    assert set(flavours) == {"Google"}
    # Each request waits for a change after what the last one that was answered was told.
    tags = [path.rpartition("last_etag=")[2] for path in paths]
    assert tags == ["0", "0", "tag2", "tag2", "tag2", "tag5"]
    assert all("/instance/maintenance-event?wait_for_change=true" in path for path in paths)


@pytest.mark.parametrize(
    "metadata_server",
    # The server answers after a while even if nothing has changed.
    [[UNAVAILABLE, TERMINATE, TERMINATE, BROKEN_OFF, TERMINATE, "NONE", TERMINATE]],
    indirect=True,
    ids=["standing"],
)
def test_a_notice_from_before_stops_nothing_but_the_next_one_does(metadata_server):
    assert signals_of_a_watch() == ["SIGTERM"]
    assert len(metadata_server) == 7


def test_elsewhere_than_in_the_cloud_nobody_is_asked_again(monkeypatch, caplog):
    monkeypatch.setenv("GCE_METADATA_HOST", "localhost:1")
    watch_maintenance().join()
    assert "no notices of maintenance" in caplog.text
