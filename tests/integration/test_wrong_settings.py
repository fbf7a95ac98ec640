"""Wrong values of settings: each is a system check error, none makes a check raise, no message has a secret."""

import os
import subprocess
import sys

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.urls import path
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from docs.settings_table import PAGE, render_page
from sdata_sync.checks import check_peers, check_scheme, check_settings
from sdata_sync.conf import MAX_INTEGER, MAX_SECONDS, Settings, conf
from sdata_sync.delivery import get_backend
from sdata_sync.models import Peer

SECRET = "swordfish"
BASE_URL = "http://www.example.com/sdata/myApp2/myContract/-"
SECONDS = [setting.name for setting in Settings.TABLE if setting.unit == "seconds"]
WHOLE_NUMBERS = [setting.name for setting in Settings.TABLE if setting.types == (int,)]
BY_NAME = {setting.name: setting for setting in Settings.TABLE}

#: Values of which none is right for any setting but where `is_right` says so.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.decimals()
    | st.text(max_size=8)
    | st.sampled_from(
        ["60", "http://[/y", "http://x/<y>", "http://x:y/z", "..", ".a", "a..b", "a b.c", "builtins.dict"]
    )
    | st.binary(max_size=3)
    | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3)
        | st.dictionaries(st.sampled_from(["username", "password", "token"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def checked(**values):
    with override_settings(SDATA_SYNC={"BASE_URL": BASE_URL, "DELIVERY": MANUAL, **values}):
        return check_settings(None)


MANUAL = "sdata_sync.delivery.manual.ManualDelivery"


def ids(messages) -> list[str]:
    return [message.id.removeprefix("sdata_sync.") for message in messages]


def is_right(name: str, value: object) -> bool:
    """State independently of the declarations which random values are right; no random text is a URL or a path."""
    if name == "ASK_PEERS_FIRST":
        return isinstance(value, bool)
    if name == "CREDENTIALS":
        return isinstance(value, dict) and all(
            isinstance(key, str) and key and is_right_entry(entry) for key, entry in value.items()
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if name == "CONFLICT_PRIORITY":
        return isinstance(value, int) and 1 <= value <= 9
    if name in ("HEARTBEAT_SECONDS", "MAX_CLOCK_SKEW_SECONDS", "DRAIN_SECONDS"):
        return 0 <= value <= MAX_SECONDS
    if name.endswith("_SECONDS"):
        return 0 < value <= MAX_SECONDS
    return name in WHOLE_NUMBERS and isinstance(value, int) and 1 <= value <= MAX_INTEGER


def is_right_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() in ({"username", "password"}, {"token"})
        and all(isinstance(value, str) and value for value in entry.values())
    )


@pytest.mark.parametrize("name", Settings.NAMES)
@given(value=anything)
@profile(max_examples=60)
def test_a_random_value_is_an_error_unless_it_is_right(name, value):
    found = checked(**{name: value})
    assert any(message.is_serious() for message in found) is not is_right(name, value), found
    assert all(message.hint for message in found)


@pytest.mark.django_db(databases="__all__")  # Django's check of a JSONField asks each database whether it knows JSON
@given(values=st.dictionaries(st.sampled_from([*Settings.NAMES, "HEARTBEAT", "MAX_CLOCK_SKEW", 5, "X"]), anything))
@profile(max_examples=100)
def test_many_random_values_make_no_check_raise(values):
    with override_settings(SDATA_SYNC=values):
        check_settings(None)
        check_scheme(None)
        path(conf.base_path, check_settings).resolve("")
        run_checks()


@given(value=anything)
@profile(max_examples=100)
def test_a_random_value_of_the_whole_dictionary(value):
    with override_settings(SDATA_SYNC=value):
        assert ids(check_settings(None))[0] in ("E001", "W001")
        assert "E001" in ids(check_settings(None))
        check_scheme(None)
        assert conf.base_path


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("HEARTBEAT_SECONDS", "60", "must be a number of seconds, 0 or more, not the string '60'."),
        ("MAX_CLOCK_SKEW_SECONDS", "60", "must be a number of seconds, 0 or more, not the string '60'."),
        ("DRAIN_SECONDS", -1, "must be a number of seconds, 0 or more, not -1."),
        ("POLL_SECONDS", 0, "must be a number of seconds above 0, not 0."),
        ("POLL_SECONDS", float("nan"), "must be a number of seconds above 0, not nan."),
        ("POLL_SECONDS", float("inf"), "must be a number of seconds above 0, not inf."),
        ("POLL_SECONDS", 1e10, f"must be a number of seconds above 0, and at most {MAX_SECONDS}, not 10000000000.0."),
        ("PAGE_SIZE", 100.0, "must be a whole number of entries, 1 or more, not 100.0."),
        ("PAGE_SIZE", True, "must be a whole number of entries, 1 or more, not True."),
        ("PAGE_SIZE", [5], "must be a whole number of entries, 1 or more, not a value of type list."),
        ("CONFLICT_PRIORITY", 10, "must be a whole number from 1 to 9, not 10."),
        ("CONFLICT_PRIORITY", 5.0, "must be a whole number from 1 to 9, not 5.0."),
        ("ASK_PEERS_FIRST", 1, "must be True or False, not 1."),
        ("DELIVERY", 5, "must be the dotted path of a delivery backend, not 5."),
    ],
)
def test_a_message_says_what_was_expected_and_what_was_given(name, value, sentence):
    [message] = checked(**{name: value})
    assert message.msg == f"SDATA_SYNC[{name!r}] {sentence}"
    assert message.hint.startswith(f"Set it to {BY_NAME[name].expected}, or remove it: the default is ")
    with override_settings(SDATA_SYNC={name: value}), pytest.raises(ImproperlyConfigured, match="must be"):
        getattr(conf, name.lower())


@pytest.mark.parametrize("name", [*SECONDS, *WHOLE_NUMBERS])
def test_a_number_that_is_too_long_to_print(name):
    [message] = checked(**{name: 10**5000})
    assert "not a number of more than 30 digits" in message.msg


@pytest.mark.parametrize("name", ["HEARTBEAT_SECONDS", "DRAIN_SECONDS", "MAX_CLOCK_SKEW_SECONDS"])
def test_zero_seconds_are_allowed_where_they_mean_something(name):
    assert checked(**{name: 0}) == []


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ([], 1),
        ({"a": [SECRET]}, 1),
        ({"a": SECRET}, 1),
        ({"a": {}}, 1),
        ({"a": {SECRET: SECRET}}, 1),
        ({"a": {"token": SECRET, "extra": SECRET}}, 1),
        ({"a": {"token": SECRET, "username": "u", "password": SECRET}}, 1),
        ({"a": {"username": "u", "password": ""}}, 1),
        ({"a": {"username": "", "password": 12345}}, 2),
        ({"a": {"token": None}, "b": {"token": b"12345"}}, 2),
        ({"": {"token": SECRET}}, 1),
        ({5: {"token": SECRET}}, 1),
    ],
)
def test_wrong_credentials(value, count):
    found = checked(CREDENTIALS=value)
    assert ids(found) == ["E005"] * count
    assert not any(secret in str(message) for message in found for secret in (SECRET, "12345"))
    with override_settings(SDATA_SYNC={"CREDENTIALS": value}), pytest.raises(ImproperlyConfigured) as raised:
        conf.credentials("a")
    assert SECRET not in str(raised.value)
    assert "12345" not in str(raised.value)


@pytest.mark.parametrize("name", Settings.NAMES)
@pytest.mark.parametrize("value", [SECRET, [SECRET], {SECRET}, {"token": SECRET}, SECRET.encode()])
def test_no_message_shows_a_secret_that_was_given_to_the_wrong_setting(name, value):
    if name != "BASE_URL" or not isinstance(value, str):
        assert SECRET not in str(checked(**{name: value}))


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}@x/y",
        f"http://{SECRET}@x/y",
        f"http://u:p?{SECRET}@x/y",
        f"http://x/y?token={SECRET}",
        f"http://x/y#{SECRET}",
        f"http://x/y?a=@{SECRET}",
    ],
)
def test_a_wrong_base_url_is_shown_without_its_secrets(url):
    [message] = checked(BASE_URL=url)
    assert message.id == "sdata_sync.E002"
    assert SECRET not in str(message)


@pytest.mark.parametrize("url", [5, ["http://x/y"], True, "http://x:y/z", "http://x/<int:y>", "http://x/$y"])
def test_what_is_no_dataset_url(url):
    assert ids(checked(BASE_URL=url)) == ["E002"]
    with override_settings(SDATA_SYNC={"BASE_URL": url}), pytest.raises(ImproperlyConfigured):
        _ = conf.base_url


@pytest.mark.parametrize("path", ["x", "", ".", "a..b", SECRET, "builtins.dict", "sdata_sync.nothing.Delivery"])
def test_a_delivery_that_cannot_be_used(path):
    assert ids(checked(DELIVERY=path)) == ["E006"]


def test_an_error_of_another_setting_is_not_reported_as_one_of_the_backend():
    found = checked(DELIVERY="sdata_sync.delivery.thread.ThreadDelivery", MAX_DELIVERIES="many")
    assert ids(found) == ["E004"]


class TestFormerNames:
    @pytest.mark.parametrize("setting", [s for s in Settings.TABLE if s.former_names], ids=lambda s: s.name)
    def test_a_former_name_is_understood(self, setting):
        [former] = setting.former_names
        with override_settings(SDATA_SYNC={former: 7}):
            assert getattr(conf, setting.name.lower()) == 7
        [message] = checked(**{former: 7})
        assert message.id == "sdata_sync.W005"
        assert setting.name in message.msg

    def test_a_wrong_value_under_a_former_name(self):
        found = checked(HEARTBEAT="60")
        assert ids(found) == ["E004", "W005"]
        assert "SDATA_SYNC['HEARTBEAT'] must be" in found[0].msg

    def test_both_names(self):
        assert ids(checked(HEARTBEAT=5, HEARTBEAT_SECONDS=6)) == ["E008"]
        with override_settings(SDATA_SYNC={"HEARTBEAT": 5, "HEARTBEAT_SECONDS": 6}):
            assert conf.heartbeat_seconds == 6


class TestPairs:
    @pytest.mark.parametrize("lease", [30, 5])
    def test_a_lease_that_is_not_longer_than_the_timeout(self, lease):
        assert ids(checked(LEASE_SECONDS=lease)) == ["W006"]
        assert checked(LEASE_SECONDS=lease, TIMEOUT_SECONDS=lease - 1) == []

    def test_a_largest_page_that_is_smaller_than_a_page(self):
        assert ids(checked(MAX_PAGE_SIZE=99)) == ["W007"]
        assert checked(MAX_PAGE_SIZE=100) == []


@pytest.mark.django_db
@pytest.mark.parametrize("value", [None, 5, [], "x"])
def test_credentials_of_a_peer_where_the_setting_is_no_dict(value):
    Peer.objects.create(name="x", url="http://x/y", credentials="gone")
    with override_settings(SDATA_SYNC={"CREDENTIALS": value}):
        assert ids(check_peers(None, databases=["default"])) == ["E020"]


@pytest.mark.parametrize(("url", "found"), [("", "E001"), ("http://x:y/z", "E002"), ("http://x/<y z>", "E002")])
def test_the_command_reports_a_wrong_base_url_although_the_urlconf_reads_it(url, found):
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=PAGE.parents[2],
        env={**os.environ, "SDATA_BASE_URL": url, "DJANGO_SETTINGS_MODULE": "testproject.settings"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"sdata_sync.{found}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_page_has_the_table_of_the_declarations():
    text = PAGE.read_text()
    assert render_page(text) == text, "Run python -m docs.settings_table"
    for setting in Settings.TABLE:
        assert not setting.page or (PAGE.parents[1] / f"{setting.page}.md").exists()


def test_the_backend_is_the_default_one_without_the_setting():
    with override_settings(SDATA_SYNC={"BASE_URL": BASE_URL}):
        assert type(get_backend()).__name__ == "ThreadDelivery"
        assert check_settings(None) == []
