import hashlib
import json
from datetime import timedelta

from django.conf import settings
from django.db import migrations, models
from django.utils import timezone


def give_time(apps, schema_editor):
    """Those that wait already get the whole of their time from now on, and the hash that they are bound to."""
    seconds = settings.APPROVAL_EXPIRY_SECONDS
    expires_at = timezone.now() + timedelta(seconds=seconds) if seconds > 0 else None
    for approval in apps.get_model("sessions_app", "Approval").objects.filter(state="pending").iterator():
        text = json.dumps(plain_numbers(approval.arguments), sort_keys=True, separators=(",", ":"))
        approval.arguments_hash = hashlib.sha256(text.encode("ascii")).hexdigest()
        approval.expires_at = expires_at
        approval.save(update_fields=["arguments_hash", "expires_at"])


def plain_numbers(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    return [plain_numbers(item) for item in value] if isinstance(value, list) else value


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0007_circuit_breaker")]
    operations = [
        migrations.AddField(
            "approval",
            "arguments_hash",
            models.CharField(blank=True, max_length=64, verbose_name="hash of the arguments"),
        ),
        migrations.AddField(
            "approval",
            "policy_version",
            models.PositiveIntegerField(blank=True, null=True, verbose_name="policy version"),
        ),
        migrations.AddField(
            "approval", "expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires at")
        ),
        migrations.AddField(
            "toolcall",
            "policy_version",
            models.PositiveIntegerField(blank=True, null=True, verbose_name="policy version"),
        ),
        migrations.AddIndex(
            "approval",
            models.Index(
                condition=models.Q(("state", "pending")), fields=["expires_at"], name="approval_pending_by_expiry"
            ),
        ),
        migrations.RunPython(give_time, migrations.RunPython.noop),
    ]
