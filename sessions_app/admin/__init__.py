"""The operators' pages. They show stored rows, and write what an operator asks for through the services."""

from django.contrib import admin

from sessions_app.admin import background, breakers, deliveries, keys, policy, policy_versions, records, sessions

__all__ = ["background", "breakers", "deliveries", "keys", "policy", "policy_versions", "records", "sessions"]

admin.site.site_header = admin.site.site_title = "Agent runtime"
admin.site.site_url = None
# The few pages there are have a place in the header.
admin.site.enable_nav_sidebar = False
