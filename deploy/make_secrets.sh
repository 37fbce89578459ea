#!/bin/sh
# Makes the secrets that deploy/compose.yaml mounts, those that are missing. The folder is its owner's alone; the files in it can
# be read by the users of the containers, which see nothing else of it.
set -eu
folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
chmod 0700 "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

secret() { # NAME VALUE
    if [ ! -e "$folder/$1" ]; then
        printf '%s' "$2" > "$folder/$1"
        chmod 0444 "$folder/$1"
    fi
}

secret postgres_password "$(random)"
secret api_key "$(random)"                     # what our own clients and Prometheus send
secret api_keys "$(cat "$folder/api_key")"     # add entries of `selfheal api-key` for other clients
secret notify_urls ""                          # where alerts are sent; empty: nowhere
for severity in critical warning info; do secret "notify_urls_$severity" ""; done
secret entity_secret ""                        # of the pseudonyms of entities; empty: made on the volume
secret pgadmin_password "$(random)"
secret grafana_password "$(random)"

# For `PROFILES=s3`: one key, as its server, its clients, and MLflow's clients read it.
s3_key="$(random)"
secret s3_credentials "[default]
aws_access_key_id = selfheal
aws_secret_access_key = $s3_key
"
s3_key="$(sed -n 's/^aws_secret_access_key = //p' "$folder/s3_credentials")"
secret s3_identities '{"identities": [{"name": "selfheal", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "selfheal", "secretKey": "'"$s3_key"'"}]}]}'
secret mlflow_credentials "[mlflow]
mlflow_tracking_username = selfheal
mlflow_tracking_password = $(cat "$folder/api_key")
"
