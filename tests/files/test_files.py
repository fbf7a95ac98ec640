"""The files of received rows are fetched from the peer, bounded, in parts, by those who may read them."""

import io
import json
import shutil
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.core.checks import run_checks
from django.core.files.base import ContentFile
from django.db import models
from PIL import Image

import sdata_sync
from sdata_sync.contrib.files import fetch
from sdata_sync.contrib.files.models import RowFile
from sdata_sync.delivery import client, session
from sdata_sync.delivery.monitoring.status import collect_status
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import DeferredEntry, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.content.deferred import retry_all

from ..many_nodes import two_nodes
from ..talk import level, push, run
from .models import ROOT, Appendix, NodeStorage, Photo, Report

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"])


class AppendixSync(sdata_sync.SyncResource):
    model = Appendix


class ReportSync(sdata_sync.SyncResource):
    children = {"appendices": AppendixSync}


@pytest.fixture
def nodes(monkeypatch):
    shutil.rmtree(ROOT, ignore_errors=True)
    with two_nodes(monkeypatch, (Report, ReportSync), Photo) as nodes:
        for node in nodes:
            with node.at_work():
                for model in (RowFile, Appendix, Report, Photo):
                    models.QuerySet(model).delete()
        yield nodes
    shutil.rmtree(ROOT, ignore_errors=True)


@pytest.fixture
def a(nodes):
    return nodes[0]


@pytest.fixture
def b(nodes):
    return nodes[1]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Ask a peer for a file again at each visit."""
    monkeypatch.setattr(fetch, "PAUSES", (0.0, 0.0))


@pytest.fixture
def requests(nodes, monkeypatch):
    """The ranges of files that are asked for."""
    asked, wire = [], client.default_transport
    usual = wire.handle_request

    def handle_request(request):
        if "$file" in request.url.path:
            asked.append(request.headers["Range"])
        return usual(request)

    monkeypatch.setattr(wire, "handle_request", handle_request)
    return asked


def report(node, content=b"hello", **values):
    with node.at_work():
        made = Report(title="one", **values)
        made.file.save("report.bin", ContentFile(content), save=False)
        made.save()
        return made


def content(node):
    with node.at_work(), Report.objects.get().file.open("rb") as file:
        return file.read()


def visit(node, other):
    """``node`` visits ``other``."""
    push(node, other)


def image(width, height):
    """Return a picture as bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_row_with_an_image_arrives_before_its_file(a, b, capsys):
    """The size of an image is stored in the row. The descriptor of the field would open the file to find it."""
    with a.at_work():
        photo = Photo.objects.create(name="p", image=ContentFile(image(31, 17), name="p.png"))
    push(a, b)
    with b.at_work():
        assert not DeferredEntry.objects.exists()
        assert Photo.objects.values_list("width", "height").get() == (31, 17)
        status = collect_status("b")
        [photos] = [kind for kind in status.kinds if kind.kind == "photos"]
        assert not photos.is_complete
        assert "1 file is missing, for example 'photos/p.png'" in photos.incomplete
    assert run(b, capsys, "sync_verify", "--kind", "photos")[0] == 1
    visit(b, a)
    with b.at_work():
        assert Photo.objects.get().image.read() == image(31, 17)
        assert collect_status("b").kinds
    with a.at_work():
        photo.image = ContentFile(image(5, 6), name="q.png")
        photo.save()
    push(a, b)
    visit(b, a)
    with b.at_work():
        photo = Photo.objects.get()
        assert (photo.width, photo.height, photo.image.read()) == (5, 6, image(5, 6))
    assert run(b, capsys, "sync_verify", "--kind", "photos")[0] == 0
    assert level(a, b)


def test_two_rows_may_name_the_same_file(a, b, capsys):
    made = report(a)
    with a.at_work():
        Report.objects.create(title="two", file=made.file.name)
    push(a, b)
    visit(b, a)
    with b.at_work():
        assert [each.file.read() for each in Report.objects.all()] == [b"hello", b"hello"]
    assert run(b, capsys, "sync_files")[0] == 0


def test_a_file_is_accepted_by_its_path(a, b, capsys):
    for title, name in (("one", "x.bin"), ("two", "y.bin")):
        with b.at_work():
            NodeStorage().save(f"reports/{name}", ContentFile(b"of b"))
        with a.at_work():
            made = Report(title=title)
            made.file.save(name, ContentFile(b"of a"), save=True)
    push(a, b)
    visit(b, a)
    status, output = run(b, capsys, "sync_files", "--accept", "reports/x.bin")
    assert status == 1
    assert "reports/y.bin" in output
    assert "reports/x.bin" not in output
    assert run(b, capsys, "sync_files", "--accept")[0] == 0


def test_files_of_rows_and_of_children_arrive(a, b):
    made = report(a, b"hello")
    with a.at_work():
        made.scan.save("scan.png", ContentFile(b"png"), save=True)
        appendix = Appendix(report=made)
        appendix.file.save("appendix.bin", ContentFile(b""), save=True)  # an empty file
    push(a, b)
    with b.at_work():
        assert set(RowFile.objects.values_list("state", flat=True)) == {"wanted"}
        assert RowFile.objects.count() == 3
    visit(b, a)
    assert content(b) == b"hello"
    with b.at_work():
        found = Report.objects.get()
        assert found.file.name == made.file.name
        assert found.scan.read() == b"png"
        assert found.appendices.get().file.read() == b""
        assert set(RowFile.objects.values_list("state", flat=True)) == {"here"}
    assert level(a, b)


def test_a_large_file_arrives_in_parts_and_goes_on_where_it_stopped(a, b, requests, monkeypatch):
    monkeypatch.setattr(fetch, "PART_BYTES", 1000)
    whole = bytes(range(256)) * 20
    report(a, whole)
    push(a, b)
    wire, usual = client.default_transport, client.default_transport.handle_request

    def break_off(request):
        if len(requests) == 3:
            requests.append("broken")
            raise client.httpx2.ConnectError("lost", request=request)
        return usual(request)

    with monkeypatch.context() as patched:
        patched.setattr(wire, "handle_request", break_off)
        visit(b, a)
    with b.at_work():
        wanted = RowFile.objects.get()
        assert (wanted.received_bytes, wanted.size_bytes, wanted.attempts) == (3000, 5120, 1)
        assert "lost" in wanted.problem
    del requests[:]
    visit(b, a)
    assert requests == ["bytes=3000-3999", "bytes=4000-4999", "bytes=5000-5999"]
    assert content(b) == whole


def test_a_delivery_does_not_wait_for_a_large_file(a, b, requests, monkeypatch):
    """After each part it is looked for changes again, when the time for errands is up."""
    monkeypatch.setattr(fetch, "PART_BYTES", 1000)
    monkeypatch.setattr(session, "ERRAND_SECONDS", 0.0)
    report(a, b"x" * 3500)
    push(a, b)
    with b.at_work(), PeerSession(Peer.objects.get()) as visit_to_a:
        for _ in range(3):
            assert visit_to_a.deliver(registry) is not None
        assert requests == []
        monkeypatch.setattr(session, "ERRAND_SECONDS", 60.0)
        assert visit_to_a.deliver(registry) is None
    assert content(b) == b"x" * 3500


def test_a_file_that_is_replaced_meanwhile_is_fetched_from_its_beginning(a, b, requests, monkeypatch):
    monkeypatch.setattr(fetch, "PART_BYTES", 4)
    made = report(a, b"old content")
    push(a, b)
    usual, replaced = client.PeerClient.read_file, []

    def replace(self, *args, start, length):
        if start == 8 and not replaced:
            replaced.append(True)
            (ROOT / "node0" / made.file.name).write_bytes(b"the new content")
        return usual(self, *args, start=start, length=length)

    monkeypatch.setattr(client.PeerClient, "read_file", replace)
    visit(b, a)
    assert content(b) == b"the new content"


def test_a_file_that_changes_all_the_time_is_given_up_for_now(a, b, monkeypatch):
    monkeypatch.setattr(fetch, "PART_BYTES", 4)
    made = report(a, b"content")
    push(a, b)
    usual = client.PeerClient.read_file

    def replace(self, *args, start, length):
        if start:
            path = ROOT / "node0" / made.file.name
            path.write_bytes(path.read_bytes() + b"more")
        return usual(self, *args, start=start, length=length)

    monkeypatch.setattr(client.PeerClient, "read_file", replace)
    visit(b, a)
    with b.at_work():
        assert "changed again and again" in RowFile.objects.get().problem


def test_a_file_that_becomes_smaller_is_fetched_from_its_beginning(a, b, monkeypatch):
    monkeypatch.setattr(fetch, "PART_BYTES", 4)
    made = report(a, b"a rather long content")
    push(a, b)
    usual, replaced = client.PeerClient.read_file, []

    def replace(self, *args, start, length):
        if start == 8 and not replaced:
            replaced.append(True)
            (ROOT / "node0" / made.file.name).write_bytes(b"tiny")
        return usual(self, *args, start=start, length=length)

    monkeypatch.setattr(client.PeerClient, "read_file", replace)
    visit(b, a)
    assert content(b) == b"tiny"


def test_a_name_that_another_file_has_is_said_and_the_other_file_is_not_taken_for_it(a, b, capsys):
    """Names are unique in one storage only: two nodes may give two files one name."""
    report(a, b"of a")
    report(b, b"of b, confidential")
    for _ in range(2):
        push(a, b)
        push(b, a)
    for node in (a, b):
        status, output = run(node, capsys, "sync_files")
        assert status == 1
        assert "another file of this name" in output
    with b.at_work():
        assert Report.objects.count() == 2
    assert run(a, capsys, "sync_files", "--accept")[0] == 0


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError("of the storage")])
def test_a_storage_that_raises_for_one_file_does_not_stop_the_others(a, b, monkeypatch, error):
    report(a, b"first")
    with a.at_work():
        second = Report(title="two")
        second.file.save("second.bin", ContentFile(b"second"), save=True)
    push(a, b)
    usual = NodeStorage.exists

    def exists(self, name):
        if name.endswith("report.bin"):
            raise error
        return usual(self, name)

    monkeypatch.setattr(NodeStorage, "exists", exists)
    visit(b, a)
    with b.at_work():
        assert Report.objects.get(title="two").file.read() == b"second"
        assert str(error) in RowFile.objects.exclude(state="here").get().problem


def test_a_row_that_comes_back_edited_keeps_its_file(a, b, capsys):
    report(a, b"hello")
    push(a, b)
    visit(b, a)
    with b.at_work():
        edited = Report.objects.get()
        edited.title = "edited"
        edited.save()
    push(b, a)
    assert run(a, capsys, "sync_files")[0] == run(b, capsys, "sync_files")[0] == 0
    assert content(a) == content(b) == b"hello"


def test_a_row_whose_entry_was_deferred_first(a, b):
    made = report(a, b"hello")
    with a.at_work():
        Appendix(report=made, file="").save()
    usual = Report.save

    def refuse(self, *args, **kwargs):
        raise ValueError("not yet")

    Report.save = refuse
    try:
        push(a, b)
    finally:
        Report.save = usual
    with b.at_work():
        assert DeferredEntry.objects.count() == 1
        assert not RowFile.objects.exists()
        retry_all(registry.of_model(Report))
        assert RowFile.objects.count() == 1
    visit(b, a)
    assert content(b) == b"hello"


def test_a_file_that_is_too_large_is_not_fetched_and_named(a, b, capsys):
    b.settings["MAX_FILE_BYTES"] = 10
    report(a, b"01234567890")
    push(a, b)
    status, output = run(b, capsys, "sync_catchup", "--json")
    assert status == 1
    [files] = [item for item in json.loads(output) if item["kind"] == "files"]
    assert "it has 11 bytes; this node accepts 10. Raise MAX_FILE_BYTES." in files["waiting"]
    b.settings["MAX_FILE_BYTES"] = 11
    assert run(b, capsys, "sync_catchup")[0] == 0
    assert content(b) == b"01234567890"


def test_what_is_not_there_is_not_found_and_named(a, b, capsys):
    made = report(a)
    (ROOT / "node0" / made.file.name).unlink()
    push(a, b)
    status, output = run(b, capsys, "sync_files")
    assert status == 1
    assert "node0: it does not have the file" in output
    (ROOT / "node0" / made.file.name).parent.mkdir(parents=True, exist_ok=True)
    (ROOT / "node0" / made.file.name).write_bytes(b"back")
    assert run(b, capsys, "sync_files") == (0, "No file is missing.\n")
    assert content(b) == b"back"


def test_rows_from_before_the_app_was_installed(a, b, capsys):
    report(a)
    push(a, b)
    with b.at_work():
        RowFile.objects.all().delete()
    assert run(b, capsys, "sync_files")[0] == 0
    assert content(b) == b"hello"


def test_a_row_that_names_another_file_meanwhile(a, b):
    report(a)
    push(a, b)
    with b.at_work():
        Report.objects.update(file="")
    visit(b, a)
    with b.at_work():
        assert not RowFile.objects.exists()
    assert not (ROOT / "node1").exists()


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/passwd", "a/../../outside.txt"])
def test_a_path_that_leads_out_of_the_storage_is_never_written(a, b, path):
    made = report(a)
    with a.at_work():
        Report.objects.filter(pk=made.pk).update(file=path)
        Report.objects.get().save()
    push(a, b)
    visit(b, a)
    with b.at_work():
        assert Report.objects.get().file.name == path
        assert RowFile.objects.get().problem
    assert sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()) == [f"node0/{made.file.name}"]


class TestWhoMayRead:
    @pytest.fixture
    def ask(self, a, client, monkeypatch):
        """Ask node0 for the file of its report, as a user; return the status."""
        made = report(a)
        with a.at_work():
            uuid = TrackedResource.objects.get(kind="reports").uuid

        def get(user, path=made.file.name, uuid=uuid, **headers):
            with a.at_work():
                if user is not None:
                    client.force_login(user)
                return client.get(
                    f"/sdata/myApp2/myContract/-/reports/$file('{uuid}')", {"path": path}, headers=headers
                )

        return get

    @pytest.fixture
    def reader(self, a):
        with a.at_work():
            user = User.objects.create(username="reader")
            user.user_permissions.add(Permission.objects.get(codename="read_feeds"))
            return user

    def test_nobody_without_a_login_and_the_permission(self, a, ask, reader):
        assert ask(None).status_code == 401
        with a.at_work():
            assert ask(User.objects.create(username="stranger")).status_code == 403
        response = ask(reader)
        assert (response.status_code, b"".join(response.streaming_content)) == (200, b"hello")
        assert response.headers["Content-Disposition"] == "attachment"

    def test_only_files_of_rows(self, a, ask, reader):
        (ROOT / "node0" / "secret.txt").write_bytes(b"secret")
        assert ask(reader, "secret.txt").status_code == 404
        assert ask(reader, "../node0/secret.txt").status_code == 404
        assert ask(reader, "").status_code == 404
        assert ask(reader, uuid=uuid4()).status_code == 404
        assert ask(reader, uuid="nonsense").status_code == 404

    def test_no_file_that_a_pusher_names_in_a_row_of_its_own(self, a, b, ask, reader):
        (ROOT / "node0" / "salaries.txt").write_bytes(b"secret")
        with b.at_work():
            Report.objects.all().delete()
            Report.objects.create(title="mine", file="salaries.txt")
        push(b, a)
        visit(a, b)
        with a.at_work():
            tracked = TrackedResource.objects.get(local_key=str(Report.objects.get(title="mine").pk), kind="reports")
        assert ask(reader, "salaries.txt", uuid=tracked.uuid).status_code == 404
        with a.at_work():
            mine = Report.objects.get(title="mine")
            mine.title = "edited here"
            Report.objects.filter(pk=mine.pk).update(title="past the signals")
        assert ask(reader, "salaries.txt", uuid=tracked.uuid).status_code == 404

    def test_only_files_of_rows_in_its_part(self, a, ask, reader):
        with a.at_work():
            Peer.objects.update(user=reader)
        kind = registry.of_kind("reports")
        assert ask(reader).status_code == 200

        class PartSync(ReportSync):
            def queryset_for(self, peer):
                return Report.objects.exclude(title="one")

        sdata_sync.unregister(Report)
        try:
            with sdata_sync.registered(Report, PartSync):
                assert ask(reader).status_code == 404
        finally:
            sdata_sync.register(Report)(type(kind.declared))

    @pytest.mark.parametrize(
        ("header", "status", "body"),
        [
            ("bytes=1-2", 206, b"el"),
            ("bytes=3-", 206, b"lo"),
            ("bytes=0-99", 200, b"hello"),
            ("bytes=9-12", 206, b""),
            ("lines=1-2", 200, b"hello"),
            ("bytes=2-1", 206, b""),
            ("bytes=99999999999999999999-", 200, b"hello"),
        ],
    )
    def test_ranges(self, ask, reader, header, status, body):
        response = ask(reader, Range=header)
        assert (response.status_code, b"".join(response.streaming_content)) == (status, body)


def test_the_check_says_nothing_of_files_that_are_fetched(nodes):
    assert "sdata_sync.W008" not in {message.id for message in run_checks()}
