"""The groups viewer, operator and administrator."""

from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from sessions_app import roles


def make(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    # Django makes permissions after all migrations: these are needed now.
    for config in apps.get_app_configs():
        if config.label in (roles.APP, "auth"):
            config.models_module = True
            create_permissions(config, apps=apps, verbosity=0)
            config.models_module = None
    roles.make(apps)


class Migration(migrations.Migration):
    dependencies = [
        ("sessions_app", "0013_policy_as_data"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(make, migrations.RunPython.noop)]
