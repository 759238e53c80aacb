# Run on a node: one line for each answer. $1: an image by the name of its source, by digest. $2: names that have to
# resolve. $3: hosts of the internet.
auth=/var/lib/kubelet/config.json
if command -v skopeo >/dev/null; then
  said=$(skopeo --debug inspect --raw --authfile "$auth" "docker://$1" 2>&1 >/dev/null)
else
  said=$(podman --log-level=debug pull --authfile "$auth" "$1" 2>&1 >/dev/null)
fi
echo "pull $?"
printf '%s\n' "$said" | grep -o 'Trying to access [^ ]*' | sed 's/^Trying to access /asked /'
printf '%s\n' "$said" | tail -n 1 | sed 's/^/said /'
for name in $2; do
  echo "name $name $(getent hosts "$name" | head -n 1)"
done
for host in $3; do
  curl -sS -o /dev/null --noproxy '*' --max-time 8 "https://$host/v2/" 2>/dev/null
  echo "internet $host $?"
done
echo "wiped $(journalctl -b -u crio.service -q --no-pager 2>/dev/null | grep -c 'dirty shutdown')"
