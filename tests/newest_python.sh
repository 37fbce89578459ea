#!/usr/bin/env bash
# The quick tests on the newest Python that is supported. Where this machine has none, a root user gets it from Debian's
# next release, bootstrapped into a temporary folder with the package sources that this machine uses; nothing here changes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=python3.14
suite=forky # of Debian, the first with it

if command -v "$python" >/dev/null; then
    exec make test-quick PYTHON="$python" VENV=.venv-3.14 ARGS="$*"
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$python is not on the PATH. Install it, or run this as root on Debian." >&2
    exit 1
fi
if ! command -v mmdebstrap >/dev/null; then
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends mmdebstrap
fi
mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt --include='*.list' --include='*.sources' | head -n 1 | tr -d ' ' || true)
if [ -z "$mirror" ]; then
    echo "No Debian archive is among this machine's package sources (/etc/apt)." >&2
    exit 1
fi

root=$(mktemp -d)
clean_up() {
    for place in proc dev; do
        if mountpoint -q "$root/$place"; then umount -l "$root/$place"; fi
    done
    if mountpoint -q "$root/dev" || mountpoint -q "$root/proc"; then
        echo "$root is still in use; unmount and delete it by hand." >&2
    else
        rm -rf --one-file-system "$root"
    fi
}
trap clean_up EXIT

echo "Fetching $python from Debian $suite (half a minute)"
# The archive may be a snapshot, so its dates are not checked; the machine's own configuration has chosen to trust it.
mmdebstrap --quiet --variant=minbase --include="$python-venv,make,git,ca-certificates" \
    --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$root" "deb [trusted=yes] $mirror $suite main"
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip "$HOME/.config/pip" /etc/ssl/certs/ca-certificates.crt; do
    if [ -e "$file" ]; then
        mkdir -p "$root$(dirname "$file")"
        cp -aLT "$file" "$root$file"
    fi
done
mkdir "$root/selfheal"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create | tar --extract --directory "$root/selfheal"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
chroot "$root" bash -c "cd /selfheal && make test-quick PYTHON=$python ARGS='$*'"
