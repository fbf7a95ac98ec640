"""One model for each third-party app, written as its documentation shows it."""

import reversion
from django.db import models
from django_countries.fields import CountryField
from djmoney.models.fields import MoneyField
from model_utils import Choices, FieldTracker
from model_utils.fields import AutoCreatedField, MonitorField, StatusField
from model_utils.models import SoftDeletableModel, TimeStampedModel
from mptt.models import MPTTModel, TreeForeignKey
from parler.models import TranslatableModel, TranslatedFields
from phonenumber_field.modelfields import PhoneNumberField
from polymorphic.models import PolymorphicModel
from simple_history.models import HistoricalRecords
from taggit.managers import TaggableManager
from treebeard.al_tree import AL_Node
from treebeard.mp_tree import MP_Node
from treebeard.ns_tree import NS_Node


class Genre(MPTTModel):
    name = models.CharField(max_length=50)
    parent = TreeForeignKey("self", models.CASCADE, null=True, blank=True, related_name="children")

    class MPTTMeta:
        order_insertion_by = ["name"]


class Category(MP_Node):
    name = models.CharField(max_length=50)
    node_order_by = ["name"]


class Section(NS_Node):
    name = models.CharField(max_length=50)


class Shelf(AL_Node):
    name = models.CharField(max_length=50)
    parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children_set")
    sib_order = models.PositiveIntegerField()


class Poll(models.Model):
    question = models.CharField(max_length=50)
    history = HistoricalRecords()


@reversion.register()
class Note(models.Model):
    text = models.TextField()


class Price(models.Model):
    amount = MoneyField(max_digits=14, decimal_places=2, default_currency="EUR")
    rebate = MoneyField(max_digits=14, decimal_places=2, null=True, default_currency=None)


class Food(models.Model):
    name = models.CharField(max_length=50)
    tags = TaggableManager()


class Project(PolymorphicModel):
    topic = models.CharField(max_length=50)


class ArtProject(Project):
    artist = models.CharField(max_length=50)


class Translated(TranslatableModel):
    code = models.CharField(max_length=10)
    translations = TranslatedFields(title=models.CharField(max_length=50))


class Tracked(TimeStampedModel, SoftDeletableModel):
    STATUS = Choices("draft", "published")
    name = models.CharField(max_length=50)
    status = StatusField()
    status_changed = MonitorField(monitor="status")
    made = AutoCreatedField()
    tracker = FieldTracker()


class Person(models.Model):
    phone = PhoneNumberField(blank=True)
    mobile = PhoneNumberField(null=True, unique=True)
    country = CountryField(blank=True)
    countries = CountryField(multiple=True, blank=True)
