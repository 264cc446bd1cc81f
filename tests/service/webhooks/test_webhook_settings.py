"""Webhooks in the settings are checked at the start, and no message shows an address or a secret."""

from __future__ import annotations

import pytest

from rootstock.service.settings import Settings, SettingsError, read_settings
from tests.service.webhooks.test_messages import SECRET

PLAIN = "ROOTSTOCK_WEBHOOK_PLAIN_HTTP"


@pytest.mark.parametrize(
    ("urls", "secret", "told"),
    [
        ("ftp://hooks.example.com/s3cret", SECRET, "ROOTSTOCK_WEBHOOK_URLS: this is not the URL of a webhook"),
        ("https://a.example/x,s3cret", SECRET, "ROOTSTOCK_WEBHOOK_URLS: this is not the URL of a webhook"),
        ("https://hooks.example.com/s3cret", "whsec_s3cret", "ROOTSTOCK_WEBHOOK_SECRET: a secret is whsec_ and"),
        ("https://hooks.example.com/s3cret", "", "ROOTSTOCK_WEBHOOK_SECRET is not"),
        ("http://hooks.example.com/s3cret", SECRET, "an http address at hooks.example.com: others on the way"),
        ("http://10.0.0.1/s3cret", SECRET, f"an http address at 10.0.0.1: .*{PLAIN}=true"),
    ],
)
def test_a_wrong_setting_of_webhooks_is_refused_without_its_secrets(
    urls: str, secret: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOTSTOCK_WEBHOOK_URLS", urls)
    monkeypatch.setenv("ROOTSTOCK_WEBHOOK_SECRET", secret)
    with pytest.raises(SettingsError, match=told) as refused:
        read_settings()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("urls", "plain"),
    [
        ("https://hooks.example.com/a, https://10.0.0.1:8443/b?c=d", False),
        ("http://127.0.0.1:8000/a,http://localhost/b", False),
        ("http://collector.internal/a,https://user:word@hooks.example.com/b", True),
    ],
)
def test_addresses_are_taken_by_https_on_loopback_or_where_the_operator_says_so(urls: str, plain: bool) -> None:
    settings = Settings(webhook_urls=urls, webhook_secret=f"{SECRET},{SECRET[:-4]}AAA=", webhook_plain_http=plain)
    assert [one.url for one in settings.receivers] == [url.strip() for url in urls.split(",")]
    assert len(settings.webhook_secrets) == 2
    assert SECRET not in repr(settings)
    assert "/a" not in repr(settings)
