"""The CRM in the admin."""

from django.contrib import admin

from .models import Account, Contact, SalesOrder, SalesOrderLine


@admin.register(Account)
class AccountAdmin(admin.ModelAdmin):
    list_display = ["name", "email", "city", "country", "credit_limit", "is_active"]
    search_fields = ["name", "email"]


@admin.register(Contact)
class ContactAdmin(admin.ModelAdmin):
    list_display = ["last_name", "first_name", "account", "email"]


class LineInline(admin.TabularInline):
    model = SalesOrderLine
    extra = 1


@admin.register(SalesOrder)
class SalesOrderAdmin(admin.ModelAdmin):
    list_display = ["order_number", "account", "order_date", "sub_total"]
    inlines = [LineInline]
