"""What operators set for the agents, which version of it a request to the model was made with, and who may try drafts."""

import django.utils.timezone
from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from sessions_app import roles


def give_permissions(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    # Django makes permissions after all migrations: these are needed now.
    for config in apps.get_app_configs():
        if config.label == roles.APP:
            config.models_module = True
            create_permissions(config, apps=apps, verbosity=0)
            config.models_module = None
    roles.make(apps)


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0017_run_traces")]
    operations = [
        migrations.AddField(
            model_name="llmrequest",
            name="agent_version",
            field=models.PositiveIntegerField(blank=True, null=True, verbose_name="version of the agent"),
        ),
        migrations.CreateModel(
            name="AgentVersion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("agent", models.CharField(max_length=32, verbose_name="agent")),
                ("number", models.PositiveIntegerField(unique=True, verbose_name="number")),
                ("overrides", models.JSONField(default=dict, verbose_name="overrides")),
                ("who", models.CharField(blank=True, max_length=150, verbose_name="who")),
                ("note", models.CharField(blank=True, max_length=500, verbose_name="note")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
            ],
            options={
                "verbose_name": "agent version",
                "verbose_name_plural": "agents",
                "ordering": ("-number",),
                "permissions": [("try_agentversion", "Can run a message against a draft of an agent")],
                "indexes": [models.Index(fields=["agent", "-number"], name="agent_version_newest")],
            },
        ),
        migrations.RunPython(give_permissions, migrations.RunPython.noop),
    ]
