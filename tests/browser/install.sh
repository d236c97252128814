#!/usr/bin/env bash
# Installs the browser that the tests open the report in, where it can; without it they are skipped and say so.
set -euo pipefail
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
    exit 0
fi
if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
    echo "tests: installing Debian packages: chromium chromium-driver"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >/dev/null
else
    echo "tests: without chromium and chromium-driver (Debian: sudo apt-get install chromium chromium-driver) the report is opened in no browser"
fi
