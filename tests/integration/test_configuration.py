"""Settings, checks and registration."""

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.test import override_settings
from rest_framework.authtoken.models import Token

import sdata_sync
from sdata_sync.checks import check_peers, check_resources, check_scheme, check_settings, check_urls
from sdata_sync.conf import Setting, Settings, conf
from sdata_sync.delivery import get_backend
from sdata_sync.delivery.backends.base import DeliveryBackend
from sdata_sync.exceptions import RegistrationError
from sdata_sync.kind import Kind
from sdata_sync.models import Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.content.contents import read_contents
from testproject.crm.models import Account, SalesOrder, SalesOrderLine

from ..shapes.models import Article, BulkAccount, Coupon, FavouritePlace, Loose, Part, Stamped, Zone


def ids(messages) -> list[str]:
    return [message.id for message in messages]


class TestSettings:
    @pytest.mark.django_db(databases="__all__")
    def test_the_test_project_is_in_order(self):
        assert ids(run_checks()) == []

    @pytest.mark.parametrize("value", [None, {}, {"PAGE_SIZE": 5}, "http://x"])
    def test_a_missing_base_url(self, settings, value):
        settings.SDATA_SYNC = value
        assert ids(check_settings(None)) == ["sdata_sync.E001"]
        with pytest.raises(ImproperlyConfigured):
            _ = conf.base_url

    @pytest.mark.parametrize(
        "url",
        [
            "shop.example.com/sdata",
            "ftp://x/y",
            "http://x",
            "http://x/a?b",
            "http://u:p@x/y",
            "http://x/ y",
            "http://[/y",
        ],
    )
    def test_a_malformed_base_url(self, settings, url):
        settings.SDATA_SYNC = {"BASE_URL": url}
        assert "sdata_sync.E002" in ids(check_settings(None))

    @pytest.mark.parametrize(
        ("name", "value", "found"),
        [
            ("PAGESIZE", 5, "sdata_sync.W001"),
            ("CONFLICT_PRIORITY", 0, "sdata_sync.E003"),
            ("PAGE_SIZE", 0, "sdata_sync.E004"),
            ("PAGE_SIZE", "many", "sdata_sync.E004"),
            ("CREDENTIALS", {"a": {"password": "x"}}, "sdata_sync.E005"),
            ("DELIVERY", "nowhere.Delivery", "sdata_sync.E006"),
        ],
    )
    def test_a_value_that_cannot_be(self, settings, name, value, found):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, name: value}
        assert ids(check_settings(None)) == [found]

    def test_secrets_are_not_shown(self, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "CREDENTIALS": {"a": {"token": "swordfish"}}}
        assert "swordfish" not in repr(conf.credentials("a"))

    def test_they_are_read_anew(self, settings):
        assert conf.page_size == 100
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "PAGE_SIZE": 7}
        assert conf.page_size == 7

    def test_every_setting_has_its_property(self):
        assert {name.lower() for name in Settings.NAMES} <= {*dir(Settings)}
        for attribute, declared in vars(Settings).items():
            if isinstance(declared, Setting):
                assert attribute.removeprefix("_") == declared.name.lower()

    def test_plain_http_in_production(self, settings):
        settings.DEBUG = True
        assert check_scheme(None) == []
        settings.DEBUG = False
        assert ids(check_scheme(None)) == ["sdata_sync.W003"]
        settings.SDATA_SYNC = {"BASE_URL": "https://x/y"}
        assert check_scheme(None) == []

    def test_transactions_of_sqlite(self, monkeypatch):
        from django.db import connections

        monkeypatch.setitem(connections.settings, "default", {"ENGINE": "django.db.backends.sqlite3"})
        assert ids(check_settings(None)) == ["sdata_sync.W002"]

    def test_the_backend_follows_the_setting(self, settings):
        before = get_backend()
        assert get_backend() is before
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "DELIVERY": f"{__name__}.OwnDelivery"}
        assert isinstance(get_backend(), OwnDelivery)

    @pytest.mark.django_db
    def test_credentials_that_do_not_exist(self):
        Peer.objects.create(name="x", url="http://x/y", credentials="gone")
        assert ids(check_peers(None, databases=["default"])) == ["sdata_sync.E020"]
        assert check_peers(None) == [], "without being asked to, checks leave the database alone"


class OwnDelivery(DeliveryBackend):
    def wake(self, kind, is_own):
        pass


def resource(**attributes):
    return type("Resource", (sdata_sync.SyncResource,), attributes)


class TestResources:
    @pytest.mark.parametrize(
        ("model", "attributes", "found"),
        [
            (Coupon, {"fields": ["code", "colour"]}, "sdata_sync.E010"),
            (Coupon, {"exclude": ["colour"]}, "sdata_sync.E010"),
            (Coupon, {"fields": ["code"], "exclude": ["code"]}, "sdata_sync.E010"),
            (Coupon, {"path": "Accounts"}, "sdata_sync.E011"),
            (User, {}, "sdata_sync.E031"),
            (Group, {}, "sdata_sync.E031"),
            (Session, {}, "sdata_sync.E031"),
            (Token, {}, "sdata_sync.E031"),
            (User, {"fields": ["username", "email"]}, None),
            (User, {"fields": ["username", "is_staff"]}, "sdata_sync.W012"),
            (User, {"fields": ["username", "password"]}, "sdata_sync.W012"),
            (Group, {"fields": ["name"]}, None),
            (Coupon, {"path": "my coupons"}, "sdata_sync.E012"),
            (Coupon, {"element": "Account"}, "sdata_sync.W011"),
            (Coupon, {"element": "account", "namespace": "http://other.example.com/"}, None),
            (Coupon, {"conflict_priority": 10}, "sdata_sync.E013"),
            (Article, {"fields": ["title", "country"]}, None),
            (Article, {"fields": ["title", "unnatural"]}, "sdata_sync.E014"),
            (Article, {"fields": ["title", "labels"]}, "sdata_sync.E014"),
            (Article, {"fields": ["title"], "children": {"parts": sdata_sync.SyncResource}}, "sdata_sync.E019"),
            (Article, {"fields": ["title"], "children": {"lines": resource(model=SalesOrderLine)}}, "sdata_sync.E019"),
            (
                Article,
                {"fields": ["title"], "children": {"parts": resource(model=Part, parent="rank")}},
                "sdata_sync.E019",
            ),
            (Article, {"fields": ["title"], "children": {"parts": resource(model=Part, fields=["rank"])}}, None),
            (Article, {"fields": ["title"], "field_names": {"name": "label"}}, "sdata_sync.E022"),
            (Article, {"fields": ["title"], "match_on": ["name"]}, "sdata_sync.E023"),
            (Article, {"fields": ["title"], "on_duplicate": "merge"}, "sdata_sync.E024"),
        ],
    )
    def test_a_resource_that_cannot_be(self, model, attributes, found):
        with sdata_sync.registered(model, resource(**attributes)):
            found_ids = [found_id for found_id in ids(check_resources(None)) if found_id != "sdata_sync.W009"]
            assert found_ids == ([found] if found else [])

    def test_a_model_without_a_table_here(self, settings):
        settings.DATABASE_ROUTERS = [f"{__name__}.ElsewhereRouter"]
        assert ids(check_resources(None)) == ["sdata_sync.E017"]

    def test_defaults(self):
        with sdata_sync.registered(Stamped) as stamped:
            assert (stamped.name, stamped.element_name) == ("stampeds", "stamped")
            assert stamped.endpoint == "http://www.example.com/sdata/myApp2/myContract/-/stampeds"
            assert [prop.name for prop in stamped.properties] == ["name", "created", "updated"]
            assert stamped.priority == 5

    @pytest.mark.django_db
    def test_attributes_of_a_subclass_replace_nothing_of_the_engine(self):
        """A user's class may have any attribute, also one that has the name of something that ``Kind`` computes."""
        declared = {name for name in vars(sdata_sync.SyncResource) if not name.startswith("_")} | {"model"}
        kind = Kind(SalesOrder, type(registry.of_model(SalesOrder).declared))
        computed = {name for name in dir(kind) if not name.startswith("__")} - declared
        assert {"rows", "priority", "columns", "endpoint", "render", "etag", "decode"} <= computed
        odd = type("OddSync", (type(kind.declared),), dict.fromkeys(computed, "the user's own"))
        order = SalesOrder.objects.create(
            account=Account.objects.create(name="ACME"), order_number="1", order_date="2026-11-28"
        )
        payloads = []
        for other in (kind, Kind(SalesOrder, odd)):
            contents, problems = read_contents(
                other, [TrackedResource(kind="salesOrders", local_key=str(order.pk))], allocate=True
            )
            assert problems == {}
            payloads.append(other.render("", contents[str(order.pk)]))
        assert payloads[0] == payloads[1]
        assert "the user" not in payloads[1]

    def test_excluded_fields_do_not_travel(self):
        whole, part = Kind(Account), Kind(Account, resource(exclude=["email"]))
        assert [name for name in whole.property_names if name not in part.property_names] == ["email"]

    def test_everything_can_be_said(self):
        said = resource(path="vouchers", element="voucher", namespace="urn:v", fields=["value"], conflict_priority=2)
        with sdata_sync.registered(Coupon, said) as coupons:
            assert (coupons.name, coupons.element_name, coupons.priority) == ("vouchers", "voucher", 2)
            assert coupons.template.render("", ["5"]) == '<voucher xmlns="urn:v"><value>5</value></voucher>'


class ElsewhereRouter:
    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return model_name != "account"


class TestRegistration:
    def test_what_every_app_says_in_its_sync_module_is_found(self):
        assert type(registry.of_model(Account).declared).__name__ == "AccountSync"

    def test_it_is_reversible(self):
        assert registry.of_model(BulkAccount) is None
        with sdata_sync.registered(BulkAccount):
            assert registry.of_kind("BULKACCOUNTS").model is BulkAccount
        assert registry.of_model(BulkAccount) is None

    @pytest.mark.django_db
    def test_what_is_no_longer_registered_is_no_longer_captured(self):
        with sdata_sync.registered(BulkAccount):
            pass
        BulkAccount(name="a").save()
        assert not TrackedResource.objects.exists()

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (Account, "registered already"),
            (FavouritePlace, "no table of its own"),
            (object, "Expected a model"),
        ],
    )
    def test_what_cannot_be_registered(self, model, message):
        with pytest.raises(RegistrationError, match=message):
            sdata_sync.register(model)(resource())

    def test_an_abstract_model(self):
        class Abstract(models.Model):
            class Meta:
                abstract = True

        with pytest.raises(RegistrationError, match="no table of its own"):
            sdata_sync.register(Abstract)(resource())

    def test_what_is_no_resource(self):
        with pytest.raises(RegistrationError, match="Expected a subclass of SyncResource"):
            sdata_sync.register(Coupon)(object)

    def test_unregistering_what_is_not(self):
        with pytest.raises(RegistrationError, match="is not registered"):
            sdata_sync.unregister(Coupon)

    def test_an_order(self):
        with (
            sdata_sync.registered(Coupon, resource(order=-1)),
            sdata_sync.registered(Stamped, resource(order=5)),
        ):
            assert [r.name for r in registry] == ["coupons", "accounts", "contacts", "salesOrders", "stampeds"]

    def test_what_goes_ahead_of_a_resource_does_not_depend_on_who_registered_it_last(self):
        """An application may replace what another registered, while somebody still has the former."""
        former = registry.of_model(Account)
        sdata_sync.unregister(Account)
        try:
            sdata_sync.register(Account)(type(former.declared))
            assert registry.ahead_of(former) == []
            assert [r.name for r in registry.ahead_of(registry.of_kind("salesOrders"))] == ["accounts", "contacts"]
        finally:
            sdata_sync.unregister(Account)
            sdata_sync.register(Account)(type(former.declared))


class TestChecksOfModels:
    def ids(self, model, declared=sdata_sync.SyncResource):
        with sdata_sync.registered(model, declared):
            return {message.id.removeprefix("sdata_sync.") for message in check_resources(None) if message.obj is model}

    def test_a_key_that_is_not_sent_and_that_nothing_makes(self):
        class WithoutKey(sdata_sync.SyncResource):
            fields = ["label"]

        class OnlySent(WithoutKey):
            is_target = False

        assert self.ids(Zone) == set()
        assert self.ids(Zone, WithoutKey) == {"E026"}
        assert self.ids(Zone, OnlySent) == set()

    def test_a_file_is_not_sent(self):
        class Shared(sdata_sync.SyncResource):
            has_shared_files = True

        class Without(sdata_sync.SyncResource):
            exclude = ["photo"]

        assert [self.ids(Loose, declared) for declared in (sdata_sync.SyncResource, Shared, Without)] == [
            {"W008"},
            set(),
            set(),
        ]

    def test_a_many_to_many_field_that_is_not_sent(self):
        class Without(sdata_sync.SyncResource):
            exclude = ["tags", "labels"]

        assert "W009" in self.ids(Article)
        assert "W009" not in self.ids(Article, Without)


class TestChecksOfUrls:
    def ids(self, base_url):
        with override_settings(SDATA_SYNC={"BASE_URL": base_url}):
            return [message.id.removeprefix("sdata_sync.") for message in check_urls(None)]

    def test_the_urls_of_the_project_serve_it(self):
        assert self.ids(conf.base_url) == []
        assert self.ids("http://other.example.com/sdata/myApp2/myContract/-") == []

    def test_another_path(self):
        assert self.ids("http://www.example.com/sdata/other/myContract/-") == ["E029"]
        assert self.ids("http://www.example.com/admin") == ["E029"]

    def test_the_url_of_a_kind(self):
        assert self.ids(f"{conf.base_url}/accounts") == ["E028"]

    def test_behind_a_prefix(self):
        with override_settings(FORCE_SCRIPT_NAME="/shop"):
            assert self.ids("http://www.example.com/shop/sdata/myApp2/myContract/-") == []
