"""Models of every shape that the app must cope with."""

import enum
import json
import uuid
from datetime import date

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils.text import slugify

import sdata_sync


class EveryField(models.Model):
    """One of each field type with a codec, all nullable, so that null and blank can be told apart."""

    char = models.CharField(max_length=50, null=True, blank=True)
    text = models.TextField(null=True, blank=True)
    slug = models.SlugField(null=True, blank=True)
    email = models.EmailField(null=True, blank=True)
    url = models.URLField(null=True, blank=True)
    choice = models.CharField(max_length=1, choices=[("r", "red"), ("g", "green")], null=True, blank=True)
    boolean = models.BooleanField(null=True, blank=True)
    integer = models.IntegerField(null=True, blank=True)
    big = models.BigIntegerField(null=True, blank=True)
    small = models.PositiveSmallIntegerField(null=True, blank=True)
    float = models.FloatField(null=True, blank=True)
    decimal = models.DecimalField(max_digits=30, decimal_places=10, null=True, blank=True)
    moment = models.DateTimeField(null=True, blank=True)
    date = models.DateField(null=True, blank=True)
    time = models.TimeField(null=True, blank=True)
    duration = models.DurationField(null=True, blank=True)
    uuid = models.UUIDField(null=True, blank=True)
    ip = models.GenericIPAddressField(null=True, blank=True)
    binary = models.BinaryField(null=True, blank=True)
    json = models.JSONField(null=True, blank=True)
    file = models.FileField(null=True, blank=True)


class Stamped(models.Model):
    """Writes its own times."""

    name = models.CharField(max_length=50)
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)


class Place(models.Model):
    name = models.CharField(max_length=50)


class Restaurant(Place):
    stars = models.IntegerField(default=0)


class FavouritePlace(Place):
    class Meta:
        proxy = True


class Coupon(models.Model):
    """A unique code, and a uuid for a primary key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    code = models.CharField(max_length=20, unique=True)
    value = models.IntegerField(default=0)


class Shouting(models.Model):
    """Has its own ``save`` and ``clean``."""

    name = models.CharField(max_length=50)

    def save(self, *args, **kwargs):
        self.name = self.name.upper()
        super().save(*args, **kwargs)

    def clean(self):
        if self.name.lower() == "forbidden":
            raise ValidationError({"name": "not this one"})


class BulkAccount(models.Model):
    """Captures what is written past ``save``."""

    name = models.CharField(max_length=50)
    rank = models.IntegerField(default=0)

    objects = sdata_sync.SyncManager()


class CountryManager(models.Manager):
    def get_by_natural_key(self, code):
        return self.get(code=code)


class Country(models.Model):
    """Not shared: every node has its own, and they are told apart by their codes."""

    code = models.CharField(max_length=2, unique=True)

    objects = CountryManager()

    def natural_key(self):
        return (self.code,)


class Tag(models.Model):
    name = models.CharField(max_length=50)


class Author(models.Model):
    name = models.CharField(max_length=50)


class Article(models.Model):
    """Leads to other rows in every way there is."""

    title = models.CharField(max_length=50)
    author = models.ForeignKey(Author, models.CASCADE, null=True, related_name="articles")
    editor = models.ForeignKey(Author, models.SET_NULL, null=True, related_name="+")
    country = models.ForeignKey(Country, models.PROTECT, null=True)
    unnatural = models.ForeignKey(Stamped, models.SET_NULL, null=True)
    sequel_to = models.ForeignKey("self", models.SET_NULL, null=True)
    tags = models.ManyToManyField(Tag, related_name="articles")
    labels = models.ManyToManyField(Stamped, related_name="+")
    about_type = models.ForeignKey(ContentType, models.CASCADE, null=True)
    about_id = models.PositiveIntegerField(null=True)
    about = GenericForeignKey("about_type", "about_id")


class Profile(models.Model):
    """Shares its primary key with its author."""

    author = models.OneToOneField(Author, models.CASCADE, primary_key=True)
    text = models.CharField(max_length=50)


class Part(models.Model):
    """A child, with a reference of its own."""

    article = models.ForeignKey(Article, models.CASCADE, related_name="parts")
    rank = models.IntegerField()
    writer = models.ForeignKey(Author, models.SET_NULL, null=True)


class Ticket(models.Model):
    code = models.CharField(max_length=20, unique=True)


class Stub(models.Model):
    """A child that knows its parent by another column than the key."""

    ticket = models.ForeignKey(Ticket, models.CASCADE, to_field="code", related_name="stubs")


class Friend(models.Model):
    name = models.CharField(max_length=50)
    friends = models.ManyToManyField("self")


def _nobody():
    """The key of the owner that stands in for a deleted one; every node has its own key for it."""
    return Owner.objects.filter(name="nobody").values_list("pk", flat=True).first()


class Owner(models.Model):
    """What assets refer to, in a tree."""

    name = models.CharField(max_length=50)
    above = models.ForeignKey("self", models.CASCADE, null=True, related_name="below")


class Asset(models.Model):
    """Refers to owners with each value of ``on_delete``."""

    name = models.CharField(max_length=50)
    cascade = models.ForeignKey(Owner, models.CASCADE, null=True, related_name="+")
    needs = models.ForeignKey(Owner, models.CASCADE, related_name="+")
    protect = models.ForeignKey(Owner, models.PROTECT, null=True, related_name="+")
    restrict = models.ForeignKey(Owner, models.RESTRICT, null=True, related_name="+")
    set_null = models.ForeignKey(Owner, models.SET_NULL, null=True, related_name="+")
    set_default = models.ForeignKey(Owner, models.SET_DEFAULT, null=True, default=_nobody, related_name="+")
    set_value = models.ForeignKey(Owner, models.SET(_nobody), null=True, related_name="+")
    do_nothing = models.ForeignKey(Owner, models.DO_NOTHING, null=True, related_name="+")
    members = models.ManyToManyField(Owner, related_name="+")


class Service(models.Model):
    """Goes with its asset, and so with the asset's owner."""

    asset = models.ForeignKey(Asset, models.CASCADE, related_name="services")
    name = models.CharField(max_length=50)


class Money:
    """An amount with a currency: what the attribute of a money field holds, while its column holds a number."""

    def __init__(self, amount, currency):
        self.amount, self.currency = amount, currency

    def __str__(self):
        return f"{self.currency} {self.amount}"


class MoneyAttribute:
    """Makes a ``Money`` of the column's value when the attribute is read, as django-money does."""

    def __init__(self, field):
        self.field = field

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        value = instance.__dict__[self.field.attname]
        if value is not None and not isinstance(value, Money):
            value = instance.__dict__[self.field.attname] = Money(value, "EUR")
        return value

    def __set__(self, instance, value):
        instance.__dict__[self.field.attname] = value


class MoneyField(models.DecimalField):
    def contribute_to_class(self, cls, name, **kwargs):
        super().contribute_to_class(cls, name, **kwargs)
        setattr(cls, self.attname, MoneyAttribute(self))

    def to_python(self, value):
        return super().to_python(value.amount if isinstance(value, Money) else value)

    def get_db_prep_save(self, value, connection):
        return super().get_db_prep_save(value.amount if isinstance(value, Money) else value, connection)

    def get_prep_value(self, value):
        return super().get_prep_value(value.amount if isinstance(value, Money) else value)


class PickyAttribute:
    """Raises when a certain value is assigned, as an image field does whose file is not here."""

    def __init__(self, field):
        self.field = field

    def __get__(self, instance, owner=None):
        return self if instance is None else instance.__dict__[self.field.attname]

    def __set__(self, instance, value):
        if value == "not here":
            raise FileNotFoundError(2, "No such file", value)
        instance.__dict__[self.field.attname] = value


class PickyField(models.CharField):
    def contribute_to_class(self, cls, name, **kwargs):
        super().contribute_to_class(cls, name, **kwargs)
        setattr(cls, self.attname, PickyAttribute(self))


class Treasure(models.Model):
    """A row with whatever can raise: when it is read, assigned, shown, saved."""

    name = models.CharField(max_length=50)
    number = models.IntegerField(null=True)
    moment = models.DateTimeField(null=True)
    price = MoneyField(max_digits=12, decimal_places=2, null=True)
    picture = PickyField(max_length=50, null=True)

    def __str__(self):
        raise ValueError("no text")

    def clean(self):
        if self.name == "unclean":
            raise RuntimeError("clean() raises what it likes")


class Claim(models.Model):
    """Not shared. Refers to a treasure without saying what becomes of it when that is deleted."""

    treasure = models.ForeignKey(Treasure, models.DO_NOTHING)


class Firm(models.Model):
    """Goes with its boss, who goes with the firm; notes go with it by a generic relation."""

    name = models.CharField(max_length=20)
    boss = models.ForeignKey("Person", models.CASCADE, null=True, related_name="+")
    notes = GenericRelation("Note", object_id_field="about_id", content_type_field="about_type")


class Person(models.Model):
    name = models.CharField(max_length=20)
    firm = models.ForeignKey(Firm, models.CASCADE)


class Note(models.Model):
    """Not shared; a row of it may be such that it cannot be loaded."""

    text = PickyField(max_length=50, null=True)
    about_type = models.ForeignKey(ContentType, models.CASCADE, null=True)
    about_id = models.PositiveIntegerField(null=True)
    about = GenericForeignKey("about_type", "about_id")


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class ColourField(models.CharField):
    """Its attribute is an enumeration; str() of that is not what the column holds."""

    def from_db_value(self, value, expression, connection):
        return None if value is None else Colour(value)

    def to_python(self, value):
        return value if value is None or isinstance(value, Colour) else Colour(value)

    def get_prep_value(self, value):
        return value.value if isinstance(value, Colour) else value


class LoudField(models.CharField):
    """Writes another value than the attribute has."""

    def pre_save(self, model_instance, add):
        value = super().pre_save(model_instance, add)
        return value.upper() if value else value


class MomentDecoder(json.JSONDecoder):
    """Turns texts that look like a date into dates, as decoders of applications do."""

    def __init__(self, **kwargs):
        super().__init__(object_hook=self.revive, **kwargs)

    @staticmethod
    def revive(found):
        return {k: date.fromisoformat(v) if k == "day" else v for k, v in found.items()}


class Wilful(models.Model):
    """Its ``save()``, its fields and a receiver of the tests write other values than the row was given."""

    name = models.CharField(max_length=50)
    slug = models.SlugField(unique=True)
    revision = models.IntegerField(default=0)
    secret = models.CharField(max_length=40, blank=True)
    search = models.TextField(blank=True)
    modified = models.DateTimeField(auto_now=True)
    colour = ColourField(max_length=1, null=True)
    loud = LoudField(max_length=50, blank=True)
    details = models.JSONField(null=True, decoder=MomentDecoder, encoder=DjangoJSONEncoder)

    def save(self, *args, **kwargs):
        self.revision += 1
        self.secret = uuid.uuid4().hex
        base = self.slug = slugify(self.name)
        if Wilful.objects.using(kwargs.get("using")).filter(slug=base).exclude(pk=self.pk).exists():
            raise ValueError(f"there is a {base} already")
        super().save(*args, **kwargs)


class Loose(models.Model):
    """Rows that the database accepts and model validation refuses."""

    code = models.CharField(max_length=20)
    size = models.CharField(max_length=5, choices=[("s", "small"), ("l", "large")])
    payload = models.JSONField(default=dict)
    answer = models.JSONField(null=True)
    note = models.CharField(max_length=20, null=True)
    email = models.EmailField()
    path = models.FilePathField(path="/", null=True)
    photo = models.FileField(null=True)
    partner = models.ForeignKey("self", models.SET_NULL, null=True)

    def clean(self):
        if not Loose.objects.filter(code="needed first").exists():
            raise ValidationError("The row that this one needs is not here yet.")


class Zone(models.Model):
    """The application gives the key: a text."""

    code = models.CharField(max_length=40, primary_key=True)
    label = models.CharField(max_length=40, blank=True)
    parent = models.ForeignKey("self", models.SET_NULL, null=True)


class Document(models.Model):
    """The topmost of three models; the application gives the key: a number."""

    number = models.IntegerField(primary_key=True)
    title = models.CharField(max_length=40, blank=True)


class Bill(Document):
    amount = models.DecimalField(max_digits=8, decimal_places=2, default=0)


class PaidBill(Bill):
    paid_on = models.DateField(null=True)


class ZoneProfile(models.Model):
    """The key is that of the row that it belongs to."""

    zone = models.OneToOneField(Zone, models.CASCADE, primary_key=True)
    text = models.CharField(max_length=40, blank=True)


class Player(models.Model):
    name = models.CharField(max_length=50)


class Team(models.Model):
    """Its association has a model of its own."""

    name = models.CharField(max_length=50)
    players = models.ManyToManyField(Player, through="Membership", related_name="teams")


class Membership(models.Model):
    team = models.ForeignKey(Team, models.CASCADE)
    player = models.ForeignKey(Player, models.CASCADE)
    since = models.DateField(null=True)
